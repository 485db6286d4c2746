//! QR code for a terminal: two modules per character, with the quiet zone of ISO/IEC 18004 (four modules).

use qrcode::render::unicode::Dense1x2;
use qrcode::types::QrError;
use qrcode::{EcLevel, QrCode};

/// Black on white in every terminal: themes do not change colours 16 and 231.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const RESET: &str = "\x1b[0m";

/// The output medium of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeSurface {
    /// On a terminal that knows colours.
    Coloured,
    /// Without colours, such as in a file or a pipe: dark modules are blocks, as on paper.
    Plain,
}

/// The text cannot be a QR code: there is too much of it.
#[derive(Debug, thiserror::Error)]
#[error("{0} bytes do not fit into a QR code; print the code as text with --link")]
pub struct CodeTooLong(usize);

/// The code of `text`, line by line.
///
/// # Errors
/// [`CodeTooLong`] beyond some 2,900 bytes.
pub fn picture(text: &str, shown: CodeSurface) -> Result<String, CodeTooLong> {
    // The least of corrections: screens have no scratches, and fewer modules are easier to see.
    let code =
        QrCode::with_error_correction_level(text, EcLevel::L).map_err(|error: QrError| {
            debug_assert_eq!(error, QrError::DataTooLong);
            CodeTooLong(text.len())
        })?;
    let picture = code.render::<Dense1x2>().build();
    let (begin, end) =
        if shown == CodeSurface::Coloured { (BLACK_ON_WHITE, RESET) } else { ("", "") };
    let mut out = String::with_capacity(picture.len().saturating_mul(2));
    for line in picture.lines() {
        out.extend([begin, line, end, "\n"]);
    }
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The modules that a reader sees in a picture.
    pub(crate) fn read(picture: &str) -> String {
        let rows: Vec<Vec<char>> = picture
            .lines()
            .map(|line| {
                line.trim_start_matches(BLACK_ON_WHITE).trim_end_matches(RESET).chars().collect()
            })
            .collect();
        let side = rows[0].len();
        assert!(rows.iter().all(|row| row.len() == side), "{picture}");
        let is_dark = |x: usize, y: usize| match rows[y / 2][x] {
            '█' => true,
            '▀' => y.is_multiple_of(2),
            '▄' => !y.is_multiple_of(2),
            _ => false,
        };
        const SCALE: usize = 4;
        let image = |x: usize, y: usize| if is_dark(x / SCALE, y / SCALE) { 0 } else { 255 };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(
            side * SCALE,
            rows.len() * 2 * SCALE,
            image,
        );
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1, "{picture}");
        grids[0].decode().unwrap().1
    }

    #[test]
    fn reader_gets_the_text_back() {
        for length in [1, 60, 250, 700] {
            let text = format!("dclogin://{}", "aé%&".repeat(length / 4));
            for shown in [CodeSurface::Coloured, CodeSurface::Plain] {
                let picture = picture(&text, shown).unwrap();
                assert_eq!(read(&picture), text);
                assert_eq!(picture.contains('\x1b'), shown == CodeSurface::Coloured);
            }
        }
        assert_eq!(picture(&"a".repeat(4000), CodeSurface::Plain).unwrap_err().0, 4000);
    }

    #[test]
    fn quiet_zone_is_there() {
        let picture = picture("dclogin://a@b/?p=x", CodeSurface::Plain).unwrap();
        let lines: Vec<&str> = picture.lines().collect();
        assert!(
            lines[0].trim().is_empty() && lines[1].trim().is_empty() && !lines[2].trim().is_empty()
        );
        assert!(lines.iter().all(|line| line.starts_with("    ") && line.ends_with("    ")));
    }
}
