//! Vocabulary of an export: words of the protocol, and words that servers and deltapush use in their responses and
//! notes. Add a missing word here, unless it could be a person's name.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::address;
use super::names::SHORTEST_NUMBER;

/// Words of commands, responses, response codes, flags, search keys, extensions; in lower case.
const PROTOCOL: &str = "
append authenticate authenticated capability check close compress copy create deflate delete deleteacl deprecated done enable
esearch examine expunge fetch flags getacl getjmapaccess getmetadata getquota getquotaroot id idle list listrights login logout
lsub metadata move myrights namespace noop notify ok no bad bye preauth quota quotaroot recent rename replace rlist rlsub search
select setacl setmetadata setquota sort starttls status store subscribe thread uid unauthenticate unselect unsubscribe vanished
exists uidnext uidvalidity uidnotsticky unseen messages highestmodseq nomodseq modseq changedsince unchangedsince condstore
qresync mailboxid appendlimit size deleted deleted-storage permanentflags read-only read-write trycreate alert alreadyexists
appenduid copyuid badcharset parse cannot clientbug contactadmin corruption expired authenticationfailed authorizationfailed
expungeissued haschildren hasnochildren inuse limit nonexistent noperm overquota privacyrequired serverbug unavailable
closed modified notsaved toobig unknown-cte webalert throttled metadata longentries maxsize toomany noprivate compressionactive
notificationoverflow badevent inprogress referral objectid uidrequired downgraded sys temp
noinferiors noselect marked unmarked nonexistent subscribed remote all archive drafts flagged junk sent trash important
answered deleted draft seen recent mdnsent forwarded notjunk nonjunk phishing submitted submitpending
envelope bodystructure body rfc822 internaldate fast full macro binary peek header fields not text mime
body.peek header.fields header.fields.not rfc822.size rfc822.header rfc822.text binary.peek binary.size
x-gm-msgid x-gm-thrid x-gm-labels x-gm-raw x-gm-ext-1 emailid threadid savedate preview fuzzy lazy
before bcc cc from keyword larger new old on or sentbefore senton sentsince since smaller subject to unanswered undeleted
undraft unflagged unkeyword younger older charset return min max count all save partial context update
messagenew messageexpunge flagchange annotationchange mailboxname subscriptionchange mailboxmetadatachange servermetadatachange
set none selected selected-delayed inboxes personal mailboxes subtree
depth infinity shared private vendor deltachat comment admin devicetoken irohrelay turn maxsmtprecipients filters values
plain login xoauth2 oauthbearer scram-sha-1 scram-sha-256 scram-sha-256-plus cram-md5 digest-md5 external anonymous gssapi
imap imap4 imap4rev1 imap4rev2 literal literal+ literal- sasl-ir auth nil inbox silent unread utf8 accept only
auto-submitted content-type secure-join chat-version chat-is-post-message autocrypt-setup-message in-reply-to references message-id
x-microsoft-original-message-id content join autocrypt setup original
+flags -flags +flags.silent -flags.silent flags.silent
";

/// Words that servers, and deltapush, say to people.
const WORDS: &str = "
a about above abort aborted accept accepted access account active address after again all allow allowed already also an and any
application are argument arguments as at attempt auto authentication authorization available back bad base64 be because been before
begin begins begun being better bits both broken browser busy but by bytes can canceled cancelled cannot certificate change
changed client clients close closed closes closing codes command commands compatible completed compression compressed connect connected
connecting connection connections connects contact context corrupted could count credentials current data date days deadline
delayed denied deltapush did disabled disconnected disconnecting do does done due during dropped each empty enabled encrypted
encryption end ended ending ends error errors established exceeded exist exists expected expired external failed failure few
finished first flag flags folder folders follow for forbidden format found from full get given go goes gone good goodbye greeting
had handshake has have here highest hold host hour hours how however id if in inactive inactivity incorrect internal into invalid is it
its itself just key known later length less limit limits line lines literal local lock locked logged logging login logins logout
long lost mail mailbox mailboxes many match maximum mechanism mechanisms message messages method min minutes missing mode moment
more ms must name names network never new next no none not nothing notify now number of off ok on one only open opened
or other others out over own parameters parse password passwords peer per permission permitted please port possible predicted private
process protocol proxy push quota rate read reached reading ready received refused rejected reload remote removed removing renewal
reply request required reset response result resumed retry root running said same secs seconds secure secured selected send sent
server servers service session sessions set sets shown shutdown shuts side simultaneous since size some soon sorry space ssl
start started starting starttls state status still stopped store stored storage such support supported supports syntax system
take taken takes temporarily temporary than that the their them then there these they this those time timed timeout times tls to
today token tokens too tried tries trust try turn two type uids unable unavailable unexpected unknown unsupported until up updated
upstream use used user username users using utf valid value values verify version via wait waiting was watch watched watches
web well what when where which while who why will with within without word words work working write writing wrong yes you your
accepts allows among anything arrive broke capabilities flight got incomplete neither nevertheless newer public shows slot
took uncompressed validated yields
idling idle hang tight app ask correctly restarting runs certificates browser proof leads authority needed place page hear heard browsers evicted
dovecot cyrus courier stalwart gimap gmail google exchange microsoft outlook yahoo debian ubuntu postfix apache james
zimbra hmail mdaemon openxchange coremail delta deltachat chat chatmail k-9 thunderbird mozilla apple iphone linux android
mon tue wed thu fri sat sun jan feb mar apr may jun jul aug sep oct nov dec gmt utc est edt pst pdt cet cest
";

/// Strings that may stand in quotes as they are; in lower case.
const STRINGS: [&str; 67] = [
    "inbox",
    "sent",
    "drafts",
    "trash",
    "junk",
    "archive",
    "deltachat",
    "spam",
    "text",
    "plain",
    "html",
    "multipart",
    "mixed",
    "alternative",
    "related",
    "report",
    "signed",
    "encrypted",
    "application",
    "octet-stream",
    "pgp-encrypted",
    "pgp-signature",
    "image",
    "jpeg",
    "png",
    "gif",
    "webp",
    "audio",
    "video",
    "message",
    "rfc822",
    "rfc822-headers",
    "disposition-notification",
    "delivery-status",
    "7bit",
    "8bit",
    "binary",
    "base64",
    "quoted-printable",
    "us-ascii",
    "utf-8",
    "iso-8859-1",
    "charset",
    "boundary",
    "format",
    "flowed",
    "delsp",
    "name",
    "filename",
    "attachment",
    "inline",
    "inline-images",
    "version",
    "vendor",
    "os",
    "support-url",
    "command",
    "arguments",
    "environment",
    "date",
    "deltapush",
    "x-via",
    "dovecot",
    "delta chat",
    "linux",
    "protected-headers",
    "v1",
];

static KNOWN: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    PROTOCOL.split_ascii_whitespace().chain(WORDS.split_ascii_whitespace()).collect()
});

/// Reports if a word may stay, in any case.
pub(super) fn is_harmless(word: &str) -> bool {
    KNOWN.contains(&*word.to_ascii_lowercase()) || word.strip_prefix('\\').is_some_and(is_harmless)
}

/// Reports if the content of quotes may stay.
pub(super) fn is_harmless_string(content: &str) -> bool {
    let lower = content.to_ascii_lowercase();
    let is_separator =
        content.len() == 1 && content.bytes().all(|byte| byte.is_ascii_punctuation());
    // A version, but no address of the network and no telephone number.
    let is_number = content.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && content.split('.').all(|digits| digits.len() < SHORTEST_NUMBER)
        && address::parse(content).is_none();
    let entry = lower
        .strip_prefix('/')
        .filter(|entry| entry.starts_with("shared/") || entry.starts_with("private/"));
    is_separator
        || is_number
        || STRINGS.contains(&&*lower)
        || lower.strip_prefix("deltapush ").is_some_and(|version| {
            version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
        || entry.is_some_and(|entry| entry.split('/').all(is_harmless))
}

/// Reports if it is a date: with the name of a month, so that a number with hyphens is none.
pub(super) fn is_date(text: &str) -> bool {
    let mut parts = text.split([' ', '-', ':', ',', '(', ')']);
    parts.clone().all(is_of_a_date)
        && parts.any(|part| part.len() == 3 && part.bytes().all(|byte| byte.is_ascii_alphabetic()))
}

/// Reports if it is part of a date: a number, a zone, a name of a month or a day.
pub(super) fn is_of_a_date(part: &str) -> bool {
    const NAMES: [&str; 21] = [
        "mon", "tue", "wed", "thu", "fri", "sat", "sun", "jan", "feb", "mar", "apr", "may", "jun",
        "jul", "aug", "sep", "oct", "nov", "dec", "gmt", "utc",
    ];
    let digits = part.strip_prefix('+').unwrap_or(part);
    digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_digit())
        || NAMES.contains(&&*part.to_ascii_lowercase())
}
