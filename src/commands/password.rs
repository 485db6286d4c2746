//! Reads a password from the terminal without echo, or from standard input; never from an argument, which other
//! users of the machine could see.

use std::io::{self, BufRead, IsTerminal};

use super::{CommandError, Fault};

/// The maximum length of a password, in bytes.
const MAX_LEN: u64 = 1000;

/// Asks for a password on the terminal; with something else as standard input, reads its first line. It may be empty.
pub(super) fn read(prompt: &str) -> Result<String, CommandError> {
    let password = if io::stdin().is_terminal() {
        let typed = rpassword::prompt_password(prompt);
        typed
            .map_err(|error| Fault::System.because(format!("cannot read the password: {error}")))?
    } else {
        first_line(io::stdin().lock())?
    };
    if password.len() as u64 > MAX_LEN {
        return Err(Fault::Usage.because(format!("the password is longer than {MAX_LEN} bytes")));
    }
    Ok(password)
}

fn first_line(input: impl BufRead) -> Result<String, CommandError> {
    // As long as it may become: a text that grows leaves copies behind.
    let mut line = String::with_capacity(4096);
    let read = input.take(MAX_LEN + 2).read_line(&mut line);
    read.map_err(|error| {
        Fault::Usage.because(format!("cannot read a password from standard input: {error}"))
    })?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_is_the_password() {
        for (input, password) in [
            ("sesame\nmore\n", "sesame"),
            (" pä ss \r\n", " pä ss "),
            ("no end", "no end"),
            ("", ""),
            ("\n", ""),
        ] {
            assert_eq!(first_line(input.as_bytes()).unwrap(), password);
        }
        assert!(first_line(b"\xff\xfe\n".as_slice()).is_err());
        assert!(first_line("a".repeat(100_000).as_bytes()).unwrap().len() as u64 > MAX_LEN);
    }
}
