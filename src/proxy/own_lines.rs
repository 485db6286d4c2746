//! The fixed lines in which deltapush itself ends a connection or refuses a command. Those that depend on the case are in
//! [`own_refusals`](super::own_refusals).
//!
//! Current apps show such a line to a person as it is: each is one or two short sentences in plain words, behind the response
//! code that fits (RFC 5530). None has the word "authentication", in which cores up to 2.59 see a wrong password. The tests
//! hold all of them against that, and against docs/deltapush-own-lines.md.

/// Declares the lines, and for the tests the list of all of them.
macro_rules! own_lines {
    ($($(#[$doc:meta])+ $name:ident = $line:literal;)+) => {
        $($(#[$doc])+ pub(super) const $name: &str = $line;)+

        #[cfg(test)]
        pub(super) const ALL: &[&str] = &[$($name),+];
    };
}

own_lines! {
    /// deltapush ends.
    RESTART = "BYE [UNAVAILABLE] Deltapush is restarting. Your app connects again by itself.";
    /// Answer to LOGOUT.
    LOGOUT = "BYE Logging out.";
    /// Nothing passed in either direction for `limits.idle_time`.
    IDLE = "BYE Nothing was sent for too long. Your app connects again by itself.";
    /// A command that deltapush holds was not complete in `limits.command_time`.
    SLOW_COMMAND = "BYE A command took too long to arrive. Your app connects again by itself.";
    /// The mail server closed the connection, or it broke.
    UPSTREAM_CLOSED = "BYE [UNAVAILABLE] The mail server closed the connection. Your app connects again by itself.";
    /// The mail server did not answer a command, and the client's next bytes depend on the answer.
    UPSTREAM_SILENT = "BYE [UNAVAILABLE] The mail server did not answer in time. Your app connects again by itself.";
    /// Malformed data after COMPRESS.
    NOT_DEFLATE = "BYE Your app sent data that is not compressed correctly (RFC 4978).";
    /// The client sent too many commands, or too many wrong ones, before the login.
    TOO_MANY_COMMANDS = "BYE Too many commands came without a login. Check the server settings in your app.";
    /// A command that goes over its limit before the login.
    COMMAND_TOO_LONG_BYE = "BYE [TOOBIG] The command is too long.";
    /// A command that goes over its limit after the login.
    COMMAND_TOO_LONG = "BAD [TOOBIG] The command is too long.";
    /// A synchronizing literal before the login that goes over the command's limit.
    LITERAL_TOO_LONG = "NO [TOOBIG] The literal is too long.";

    /// AUTHENTICATE with another mechanism.
    NO_SUCH_MECHANISM = "NO [CANNOT] This way to log in is not available here. Use PLAIN, LOGIN, XOAUTH2, OAUTHBEARER, SCRAM-SHA-1 or SCRAM-SHA-256.";
    /// SCRAM bound to the TLS connection, which ends here.
    NO_CHANNEL_BINDING = "NO [CANNOT] A login here cannot be bound to the TLS connection. Turn channel binding off.";
    /// `*` in a SASL exchange.
    CANCELLED = "BAD The login was cancelled.";
    /// A line of a SASL exchange that is not base64.
    NOT_BASE64 = "BAD [CLIENTBUG] The login data is not valid base64.";
    /// LOGIN with wrong arguments.
    LOGIN_SYNTAX = "BAD [CLIENTBUG] LOGIN needs a user name and a password.";
    /// AUTHENTICATE with wrong arguments.
    AUTHENTICATE_SYNTAX = "BAD [CLIENTBUG] AUTHENTICATE needs a mechanism.";
    /// Malformed SASL PLAIN.
    NOT_PLAIN = "BAD [CLIENTBUG] The login data is not a valid PLAIN message (RFC 4616).";
    /// Malformed XOAUTH2.
    NOT_XOAUTH2 = "BAD [CLIENTBUG] The login data is not a valid XOAUTH2 message.";
    /// Malformed OAUTHBEARER, or one without a user name.
    NOT_OAUTHBEARER = "BAD [CLIENTBUG] The login data is not a valid OAUTHBEARER message with a user name in a= (RFC 7628).";
    /// Malformed SCRAM.
    NOT_SCRAM = "BAD [CLIENTBUG] The login data is not a valid first SCRAM message (RFC 5802).";
    /// SASL LOGIN with an unusable user name.
    NOT_A_USER_NAME = "BAD [CLIENTBUG] The login data is not a valid user name.";
    /// SASL LOGIN with an unusable password.
    NOT_A_PASSWORD = "BAD [CLIENTBUG] The password has a NUL character in it, which is not allowed.";
    /// Another command before the login.
    UNKNOWN_COMMAND = "BAD This command is unknown, or it needs a login first.";
    /// STARTTLS where it is not offered.
    NO_STARTTLS = "BAD STARTTLS is not available here.";
    /// ID beyond the bounds of RFC 2971.
    ID_SYNTAX = "BAD [CLIENTBUG] ID needs NIL or a list of at most 30 fields (RFC 2971).";

    /// A line that is no command.
    NOT_A_COMMAND = "BAD [CLIENTBUG] A command needs a tag, a space and a name.";
    /// LOGIN or AUTHENTICATE after the login.
    LOGGED_IN = "BAD [CLIENTBUG] You are logged in already.";
    /// STARTTLS after the login.
    LATE_STARTTLS = "BAD [CLIENTBUG] STARTTLS is possible only before the login.";
    /// A literal in a command that takes no arguments.
    NO_LITERAL = "BAD This command takes no literal, or it is too long.";
    /// A command that cannot cross a proxy.
    NOT_AVAILABLE = "BAD This command is not available here.";
    /// GETJMAPACCESS: its answer names a server that the client would reach without deltapush.
    NO_JMAP = "NO [CANNOT] JMAP is not available here.";
    /// LOGOUT with arguments.
    LOGOUT_SYNTAX = "BAD [CLIENTBUG] LOGOUT takes no arguments.";
    /// COMPRESS without a mechanism, or with more than one.
    COMPRESS_SYNTAX = "BAD [CLIENTBUG] COMPRESS needs one mechanism.";
    /// COMPRESS with another mechanism.
    ONLY_DEFLATE = "BAD This mechanism is not available here. Use DEFLATE.";
    /// COMPRESS once more (RFC 4978 section 3).
    COMPRESSED = "NO [COMPRESSIONACTIVE] Compression is active already.";

    /// Malformed GETMETADATA or SETMETADATA.
    METADATA_SYNTAX = "BAD [CLIENTBUG] The syntax of this command is wrong (RFC 5464 section 5).";
    /// SETMETADATA of another entry at a server without METADATA.
    ONLY_TOKEN = "NO [METADATA NOPRIVATE] Only /private/devicetoken can be set here.";
    /// SETMETADATA over the command's limit.
    VALUE_TOO_LONG = "NO [METADATA MAXSIZE 4096] The value is longer than 4096 bytes.";
    /// A device token over [`DeviceToken::MAX_LEN`](crate::secret::DeviceToken::MAX_LEN).
    TOKEN_TOO_LONG = "NO [METADATA MAXSIZE 4096] The device token is longer than 4096 bytes.";
    /// A device token that cannot be one.
    NOT_A_TOKEN = "NO [CANNOT] The device token is empty or has characters other than printable ASCII.";
    /// The state could not be written.
    NOT_STORED = "NO [UNAVAILABLE] The device token cannot be stored at the moment. Try again later.";
    /// `limits.accounts` is reached.
    NO_MORE_ACCOUNTS = "NO [LIMIT] This server takes no more accounts. Ask its operator.";
    /// `limits.new_accounts_per_address` is reached.
    TOO_MANY_NEW_ACCOUNTS = "NO [LIMIT] Too many new accounts came from your network. Try again tomorrow.";
    /// The share of one mail server in `limits.accounts` is reached.
    NO_MORE_AT_UPSTREAM = "NO [LIMIT] This server takes no more accounts of your mail server. Ask its operator.";
}

/// The same as an untagged response.
pub(super) fn untagged(line: &str) -> String {
    format!("* {line}\r\n")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::super::own_refusals;
    use super::*;
    use crate::parser::response::ELSEWHERE;
    use crate::secret::DeviceToken;
    use crate::upstream::refusal::{LoginRefusal, classify};

    /// Condition, response code and text.
    fn parts(line: &str) -> (&str, Option<&str>, &str) {
        let (condition, rest) = line.split_once(' ').unwrap();
        match rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
            Some((code, text)) => (condition, Some(code), text),
            None => (condition, None, rest),
        }
    }

    /// Every line: fixed ones, the refusals of each kind, and the words for a server's missing ones.
    fn all() -> Vec<String> {
        let refusals = own_refusals::tests::all();
        let mut all: Vec<String> = ALL.iter().map(ToString::to_string).collect();
        all.extend(refusals.iter().map(ToString::to_string));
        all.push(format!("NO {ELSEWHERE}"));
        all
    }

    #[test]
    fn every_line_is_one_or_two_short_sentences() {
        for line in all() {
            let (condition, code, text) = parts(&line);
            assert!(["NO", "BAD", "BYE"].contains(&condition), "{line}");
            assert!(
                line.len() <= 160 && line.is_ascii() && !line.contains(['\r', '\n', ';']),
                "{line}"
            );
            assert!(
                text.starts_with(|first: char| first.is_ascii_uppercase()) && text.ends_with('.'),
                "{line}"
            );
            let sentences = text.split_inclusive(". ").count();
            assert!(sentences <= 2, "{line}");
            assert!(code.is_none_or(|code| !code.is_empty()), "{line}");
        }
    }

    /// Cores up to 2.59 find the word anywhere in the line; a person, and deltapush itself where it reads such a line, find more.
    #[test]
    fn no_line_blames_the_password_but_those_about_it() {
        for line in all() {
            let (_, code, text) = parts(&line);
            assert!(!text.to_lowercase().contains("authentication"), "{line}");
            if code == Some("AUTHENTICATIONFAILED") {
                continue;
            }
            assert!(!line.to_lowercase().contains("authentication"), "{line}");
            let blames = [
                "wrong password.",
                "password is wrong",
                "refused this password",
                "check your password",
            ];
            assert!(!blames.iter().any(|words| text.to_lowercase().contains(words)), "{line}");
            let may = matches!(code, Some("AUTHORIZATIONFAILED" | "PRIVACYREQUIRED"));
            assert!(may || classify(line.as_bytes(), b"") != LoginRefusal::Credentials, "{line}");
        }
        let blaming: Vec<String> =
            all().into_iter().filter(|line| line.contains("AUTHENTICATION")).collect();
        assert_eq!(
            blaming.len(),
            2,
            "a password that the server refused, and an account that is none: {blaming:?}"
        );
    }

    #[test]
    fn every_line_is_documented() {
        let page = include_str!("../../docs/deltapush-own-lines.md");
        let missing: Vec<_> = ALL.iter().filter(|line| !page.contains(**line)).collect();
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(page.contains(ELSEWHERE));
    }

    #[test]
    fn lines_name_the_longest_token() {
        for line in [VALUE_TOO_LONG, TOKEN_TOO_LONG] {
            assert!(line.contains(&format!("MAXSIZE {}]", DeviceToken::MAX_LEN)), "{line}");
        }
    }

    /// Sources of what clients hear, without their tests and comments: name and lines.
    fn sources() -> Vec<(PathBuf, Vec<String>)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders =
            ["proxy", "admission", "upstream", "push"].map(|folder| root.join(folder)).to_vec();
        let mut files = vec![root.join("secret.rs"), root.join("parser/response.rs")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "testing.rs"
        });
        let code = |path: PathBuf| {
            let text = fs::read_to_string(&path).unwrap();
            let tests = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(super) mod tests {"];
            let end = tests.iter().filter_map(|tests| text.find(tests)).min().unwrap_or(text.len());
            let code =
                text.split_at(end).0.lines().filter(|line| !line.trim_start().starts_with("//"));
            let lines = code.map(str::to_owned).collect();
            (path, lines)
        };
        files.into_iter().map(code).collect()
    }

    /// All refusals stand in this file and in own_refusals.rs, so that the tests above see all of them.
    #[test]
    fn no_other_file_has_a_refusal_in_it() {
        let begins = [
            "\"NO ", "\"BAD ", "\"BYE ", "\"* BYE", "\"* NO", "\"* BAD", " NO [", " BAD [",
            " BYE [",
        ];
        let sources = sources();
        assert!(sources.len() > 80, "{}", sources.len());
        let mut found = Vec::new();
        for (path, lines) in &sources {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !["own_lines.rs", "own_refusals.rs"].contains(&name) {
                found.extend(
                    lines.iter().filter(|line| begins.iter().any(|begin| line.contains(begin))),
                );
            }
        }
        // For a server's answer that repeats the password; and words of servers that are to be classified.
        let allowed =
            ["NO The login was refused.", r#"format!("NO {words}")"#, r#"[b"BAD ", refused.text]"#];
        found.retain(|line| !allowed.iter().any(|known| line.contains(known)));
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Words that come to clients by other ways: errors of the upstream, reasons in the push status.
    #[test]
    fn no_source_has_the_word_by_which_old_cores_blame_the_password() {
        let sources = sources();
        let lines = sources.iter().flat_map(|(_, lines)| lines);
        let blaming: Vec<&String> =
            lines.filter(|line| line.to_lowercase().contains("authentication")).collect();
        // Codes, and places where the word is looked for in what servers say.
        let known = [
            "NO [AUTHENTICATIONFAILED]",
            r#"("AUTHENTICATIONFAILED", LoginRefusal::Credentials)"#,
            r#"("authentication failed", LoginRefusal::Credentials)"#,
            r#"b"authentication""#,
            r#"contains("authentication")"#,
        ];
        let unknown: Vec<_> =
            blaming.iter().filter(|line| !known.iter().any(|known| line.contains(known))).collect();
        assert!(unknown.is_empty(), "{unknown:#?}");
        assert_eq!(blaming.len(), known.len(), "{blaming:#?}");
    }
}
