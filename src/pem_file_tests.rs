//! Recognition of files that are no usable key or certificate, with files made by `openssl` where it has the form.

use std::fs;
use std::process::Command;

use super::*;

/// A folder with a key, its certificate, and what the command line tool of OpenSSL makes of them.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        fs::write(folder.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        fs::write(folder.path("cert.pem"), made.cert.pem()).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    fn openssl(&self, command: &str) {
        let run =
            Command::new("openssl").current_dir(self.0.path()).args(command.split(' ')).output();
        let run = run.expect("install the openssl command line tool (Debian: openssl)");
        assert!(
            run.status.success(),
            "openssl {command}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

/// Runs what an error names between `…`, with a passphrase where one is asked for.
fn follow(cure: &str, passphrase: &str) {
    let command = cure.split('`').nth(1).unwrap();
    assert!(command.starts_with("openssl "), "{cure}");
    let command = format!("{command} {passphrase}");
    let run = Command::new("sh").args(["-c", command.trim_end()]).output().unwrap();
    assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
}

fn key_error(path: &Path) -> String {
    private_key(path, "the usual cure").unwrap_err().to_string()
}

fn chain_error(path: &Path) -> String {
    certificates(path, "the usual cure").unwrap_err().to_string()
}

#[test]
fn keys_under_a_passphrase_are_recognised_and_the_cure_works() {
    let folder = Folder::new();
    folder.openssl("pkcs8 -topk8 -in key.pem -out pkcs8.pem -passout pass:sesame");
    folder.openssl("ec -in key.pem -aes128 -passout pass:sesame -out legacy.pem");
    folder.openssl("pkcs8 -topk8 -in key.pem -outform DER -out pkcs8.der -passout pass:sesame");
    folder.openssl(
        "pkcs8 -topk8 -v1 PBE-SHA1-3DES -in key.pem -outform DER -out old.der -passout pass:sesame",
    );
    let expected = private_key(&folder.path("key.pem"), "").unwrap();
    for name in ["pkcs8.pem", "legacy.pem", "pkcs8.der", "old.der"] {
        let error = key_error(&folder.path(name));
        assert!(
            error.contains("encrypted with a passphrase") && error.contains("`openssl pkey "),
            "{name}: {error}"
        );
        follow(&error, "-passin pass:sesame");
        let converted = folder.path(name).with_extension("plain-key.pem");
        let key = private_key(&converted, "").unwrap();
        let pair = |key| rcgen::KeyPair::try_from(key).unwrap().serialize_der();
        assert_eq!(pair(&key), pair(&expected), "{name}");
        fs::remove_file(converted).unwrap();
    }
    let both = [folder.bytes("legacy.pem"), folder.bytes("key.pem")].concat();
    assert_eq!(private_key(&folder.write("both.pem", both), "").unwrap(), expected);
}

#[test]
fn other_forms_of_certificates_are_recognised_and_the_cure_works() {
    let folder = Folder::new();
    folder.openssl("x509 -in cert.pem -outform DER -out cert.der");
    folder.openssl("pkcs12 -export -inkey key.pem -in cert.pem -out both.p12 -passout pass:sesame");
    folder.openssl("crl2pkcs7 -nocrl -certfile cert.pem -out cert.p7b");
    folder.openssl("crl2pkcs7 -nocrl -certfile cert.pem -outform DER -out der.p7b");
    folder.openssl("x509 -in cert.pem -trustout -out trusted.pem");
    let expected = certificates(&folder.path("cert.pem"), "").unwrap();
    for (name, form, passphrase) in [
        ("cert.der", "DER", ""),
        ("both.p12", "PKCS#12", "-passin pass:sesame"),
        ("cert.p7b", "PKCS#7", ""),
        ("der.p7b", "PKCS#7", ""),
        ("trusted.pem", "TRUSTED CERTIFICATE", ""),
    ] {
        let error = chain_error(&folder.path(name));
        assert!(
            error.contains("no certificate in it, but ") && error.contains(form),
            "{name}: {error}"
        );
        follow(&error, passphrase);
        assert_eq!(
            certificates(&folder.path(name).with_extension("chain.pem"), "").unwrap(),
            expected,
            "{name}"
        );
    }
}

#[test]
fn other_forms_of_keys_are_recognised_and_the_cure_works() {
    let folder = Folder::new();
    folder.openssl("pkey -in key.pem -outform DER -out sec1.der");
    folder.openssl("pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out pkcs8.der");
    folder.openssl("genrsa -out rsa.pem 2048");
    folder.openssl("rsa -in rsa.pem -traditional -outform DER -out pkcs1.der");
    folder.openssl("pkcs12 -export -inkey key.pem -in cert.pem -out both.p12 -passout pass:sesame");
    for (name, form, passphrase) in [
        ("sec1.der", "DER", ""),
        ("pkcs8.der", "DER", ""),
        ("pkcs1.der", "DER", ""),
        ("both.p12", "PKCS#12", "-passin pass:sesame"),
    ] {
        let error = key_error(&folder.path(name));
        assert!(
            error.contains("no private key in it, but ") && error.contains(form),
            "{name}: {error}"
        );
        follow(&error, passphrase);
        let converted = folder.path(name).with_extension("plain-key.pem");
        private_key(&converted, "").unwrap();
        fs::remove_file(converted).unwrap();
    }
}

#[test]
fn swapped_and_unfinished_files_are_recognised() {
    let folder = Folder::new();
    folder.openssl("x509 -in cert.pem -outform DER -out cert.der");
    folder.openssl("pkey -in key.pem -outform DER -out key.der");
    folder.openssl("pkcs8 -topk8 -in key.pem -out encrypted.pem -passout pass:sesame");
    folder.openssl("pkey -in key.pem -pubout -out public.pem");
    folder.openssl("req -new -key key.pem -subj /CN=a.example -out request.pem");
    folder.openssl("req -in request.pem -outform DER -out request.der");
    let of_chain = |name: &str| chain_error(&folder.path(name));
    let of_key = |name: &str| key_error(&folder.path(name));
    for error in [of_chain("key.pem"), of_chain("key.der"), of_chain("encrypted.pem")] {
        assert!(
            error.ends_with(": no certificate in it, but a private key; the usual cure"),
            "{error}"
        );
    }
    for error in [of_key("cert.pem"), of_key("cert.der")] {
        assert!(
            error.ends_with(": no private key in it, but a certificate; the usual cure"),
            "{error}"
        );
    }
    for error in [of_chain("request.pem"), of_chain("request.der"), of_key("request.pem")] {
        assert!(error.contains("but a certificate signing request"), "{error}");
    }
    assert!(of_key("public.pem").contains("but a public key"), "{}", of_key("public.pem"));
}

#[test]
fn empty_unknown_and_damaged_files_are_told_apart() {
    let folder = Folder::new();
    let key = String::from_utf8(folder.bytes("key.pem")).unwrap();
    for (content, problem) in [
        ("", "the file is empty: no private key in it"),
        ("\u{feff}\r\n", "no private key in it: it is not PEM"),
        ("\n \n", "the file is empty: no private key in it"),
        ("sesame", "no private key in it: it is not PEM"),
        ("0sesame", "no private key in it: it is not PEM"),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAA\n-----END OPENSSH PRIVATE KEY-----",
            "a key in the format of OpenSSH; convert a copy",
        ),
        ("-----BEGIN X509 CRL-----\nAA\n-----END X509 CRL-----", "no private key in it"),
        (key.split_once("-----END").unwrap().0, "is damaged: there is no line `-----END …`"),
        (&key.replace("KEY-----\n", "KEY-----\n*"), "is damaged: it is not base64"),
        (&key.replacen("KEY-----\n", "KEY----- ", 1), "no private key in it"),
    ] {
        let error = key_error(&folder.write("other.pem", content));
        assert!(error.contains(problem), "{content:.20}: {error}");
        let secret = key.lines().nth(1).unwrap().get(..16).unwrap();
        assert!(!error.contains(secret) && !error.contains("sesame"), "{error}");
    }
    assert!(
        key_error(&folder.path("missing.pem")).contains("cannot be read: there is no such file")
    );
    assert!(private_key(&folder.path("missing.pem"), "").unwrap_err().is_missing());
    let huge = vec![b'\n'; usize::try_from(MAX_LEN).unwrap()];
    assert!(key_error(&folder.write("huge.pem", huge)).contains("longer than 4 MiB"));
}

#[test]
fn marks_line_ends_indentation_and_other_sections_are_no_obstacle() {
    let folder = Folder::new();
    let text = |name: &str| String::from_utf8(folder.bytes(name)).unwrap();
    let (key, chain) = (text("key.pem"), text("cert.pem"));
    let (expected_key, expected_chain) = (
        private_key(&folder.path("key.pem"), "").unwrap(),
        certificates(&folder.path("cert.pem"), "").unwrap(),
    );
    let utf16 = |text: &str| {
        [vec![0xff, 0xfe], text.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat()
    };
    type Form = fn(&str) -> String;
    let forms: [(&str, Form); 6] = [
        ("mark", |text| format!("\u{feff}{text}")),
        ("crlf", |text| text.replace('\n', "\r\n")),
        ("cr", |text| text.replace('\n', "\r")),
        ("indented", |text| text.lines().map(|line| format!("    {line}\t\n")).collect()),
        ("explained", |text| format!("Bag Attributes\n    friendlyName: Länder\n{text}\nend\n")),
        ("all", |text| format!("\u{feff}  {}", text.replace('\n', " \r\n  "))),
    ];
    for (name, form) in forms {
        assert_eq!(
            private_key(&folder.write(name, form(&key)), "").unwrap(),
            expected_key,
            "{name}"
        );
        assert_eq!(
            certificates(&folder.write(name, form(&chain)), "").unwrap(),
            expected_chain,
            "{name}"
        );
        assert_eq!(
            private_key(&folder.write(name, utf16(&form(&key))), "").unwrap(),
            expected_key,
            "{name}"
        );
        assert_eq!(
            certificates(&folder.write(name, utf16(&form(&chain))), "").unwrap(),
            expected_chain,
            "{name}"
        );
    }
    let damaged = "-----BEGIN X509 CRL-----\n*\n-----END X509 CRL-----\n";
    let together = folder.write("together.pem", format!("{damaged}{key}{chain}\u{feff}{chain}"));
    assert_eq!(private_key(&together, "").unwrap(), expected_key);
    assert_eq!(certificates(&together, "").unwrap().len(), 2);
}

#[test]
fn paths_are_quoted_for_the_shell_where_they_must_be() {
    assert_eq!(quoted(Path::new("/etc/a-b_c.pem")), "/etc/a-b_c.pem");
    assert_eq!(quoted(Path::new("it's; here")), r"'it'\''s; here'");
    let folder = tempfile::tempdir().unwrap();
    let named = folder.path().join("it's; my $HOME cert.der");
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    fs::write(&named, made.cert.der()).unwrap();
    follow(&chain_error(&named), "");
    assert_eq!(
        certificates(&named.with_extension("chain.pem"), "").unwrap(),
        [made.cert.der().clone()]
    );
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(start in proptest::sample::select(vec![&b""[..], b"\x30", b"\x30\x82\x01", b"\xff\xfe", b"-----BEGIN "]),
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let content = [start, &bytes].concat();
        let _ = (certificates_in(&content).map_err(|flaw| flaw.to_string()), private_key_in(&content).map_err(|flaw| flaw.to_string()));
    }
}
