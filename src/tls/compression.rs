//! Compression of the certificates that clients are shown (RFC 8879), with brotli, the one algorithm that Delta Chat offers.
//!
//! Not by rustls's feature, which would also offer mail servers to decompress what they send.

use brotli::enc::BrotliEncoderParams;
use tokio_rustls::rustls::CertificateCompressionAlgorithm;
use tokio_rustls::rustls::compress::{
    CertCompressor, CompressionCache, CompressionFailed, CompressionLevel,
};

/// Compressed chains that are kept: each is some kilobytes. A chain is compressed once, however many clients see it.
const KEPT: usize = 32;

/// The largest: some milliseconds for a chain, and 5 MB of memory meanwhile.
const QUALITY: i32 = 11;

/// The size of the window as a power of two: no chain is longer.
const WINDOW: i32 = 16;

/// The compressors of listeners.
pub(super) const COMPRESSORS: &[&dyn CertCompressor] = &[&Brotli];

/// Memory for what [`COMPRESSORS`] made.
pub(super) fn cache() -> CompressionCache {
    CompressionCache::new(KEPT)
}

#[derive(Debug)]
struct Brotli;

impl CertCompressor for Brotli {
    fn compress(&self, input: Vec<u8>, _: CompressionLevel) -> Result<Vec<u8>, CompressionFailed> {
        let params = BrotliEncoderParams {
            quality: QUALITY,
            lgwin: WINDOW,
            size_hint: input.len(),
            ..BrotliEncoderParams::default()
        };
        let mut output = Vec::new();
        brotli::BrotliCompress(&mut input.as_slice(), &mut output, &params)
            .map_err(|_| CompressionFailed)?;
        Ok(output)
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        CertificateCompressionAlgorithm::Brotli
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_becomes_smaller_and_is_whole_afterwards() {
        let mut params = rcgen::CertificateParams::new(["imap.example.org".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example Organization");
        let chain: Vec<u8> = (0..2)
            .flat_map(|_| {
                let key = rcgen::KeyPair::generate().unwrap();
                params.self_signed(&key).unwrap().der().to_vec()
            })
            .collect();
        let made = Brotli.compress(chain.clone(), CompressionLevel::Interactive).unwrap();
        assert!(made.len() * 10 < chain.len() * 9, "{} of {}", made.len(), chain.len());
        let mut read = Vec::new();
        brotli::BrotliDecompress(&mut made.as_slice(), &mut read).unwrap();
        assert_eq!(read, chain);
    }
}
