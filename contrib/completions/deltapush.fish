# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_deltapush_global_optspecs
    string join \n config= trace= h/help V/version
end

function __fish_deltapush_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_deltapush_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_deltapush_using_subcommand
    set -l cmd (__fish_deltapush_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c deltapush -n "__fish_deltapush_needs_command" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_needs_command" -l trace -d 'Print the protocol of every session on standard output, or write it to files per account in a folder; passwords and tokens are masked, literals (message bodies) are shown as their size' -r -F
complete -c deltapush -n "__fish_deltapush_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c deltapush -n "__fish_deltapush_needs_command" -s V -l version -d 'Print version'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "run" -d 'Serve until SIGTERM or SIGINT (Ctrl-C); this is the default'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "check" -d 'Check the configuration, the files that it names, ports and folders; print the resulting setup, change nothing'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "doctor" -d 'Check everything that a push needs: service, DNS name, ports, certificate, mail servers, notification server, clock, accounts; print what helps'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "init" -d 'Create a configuration for a mail address: find its server, read its capabilities, choose ports and certificate; then start the service and print the login code'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "qr" -d 'Print the login code that sets up Delta Chat in one scan; asks for the password and does not store it'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "status" -d 'Show the status of the running server and its accounts'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "account" -d 'Show the recent history of an account, from the new message to the device\'s connection; or erase the account, or restart its watch'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "push-test" -d 'Wake an account\'s devices once and wait until they connect'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "news" -d 'Tell deltapush of the new message on standard input, as pipes of a mail server do; for routes with `news: server` or `news: both`'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "trace" -d 'Follow the protocol of running sessions until Ctrl-C'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "state" -d 'Check, copy, move or re-seal the stored state: accounts, tokens, sealed passwords'
complete -c deltapush -n "__fish_deltapush_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c deltapush -n "__fish_deltapush_using_subcommand run" -l trace -d 'Print the protocol of every session on standard output, or write it to files per account in a folder; passwords and tokens are masked, literals (message bodies) are shown as their size' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand run" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand run" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand check" -l login -d 'Show the route of this login, its mail server and the login name used there' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand check" -l listener -d 'With --login: assume a client of this listener (name or address)' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand check" -l host -d 'With --login: assume a client that requests this name in TLS (SNI)' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand check" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand check" -l connect -d 'With --login: connect to its mail server, and show what it can do; nobody logs in'
complete -c deltapush -n "__fish_deltapush_using_subcommand check" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand doctor" -l push-test -d 'At the end, wake the devices of this account as `deltapush push-test` does' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand doctor" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l hostname -d 'IMAP server name that users enter in Delta Chat; default: this machine\'s name if it resolves to this machine, else the answer to a question, without a terminal localhost' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l upstream -d 'Mail server, if it is not found: imaps://host, or imap://host for STARTTLS' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l smtp -d 'SMTP server, if it is not found: smtps://host, or smtp://host for STARTTLS' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l ca -d 'Certificate authorities for the mail server: webpki, system, or a PEM file' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l dns -d 'Use this DNS server' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l chain -d 'Your own certificate chain, in PEM' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l key -d 'Private key of that certificate, in PEM' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l private -d 'Allow mail servers with private addresses'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l agree-to-terms -d 'Agree to the terms of service of Let\'s Encrypt (letsencrypt.org/repository) to get a certificate automatically'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l only-me -d 'Accept only logins of this address (allow.logins)'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l news -d 'Have the Dovecot of this machine tell deltapush of new messages (`news: both`)'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l overwrite -d 'Replace an existing configuration'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l start -d 'Start the service at the end, and at each boot, without a question'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l no-start -d 'Do not start the service, and do not ask'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -l password-stdin -d 'Read the account\'s password from standard input, for one test login and the login code'
complete -c deltapush -n "__fish_deltapush_using_subcommand init" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand qr" -l smtp -d 'SMTP server, instead of the configured or discovered one: smtps://host or smtp://host' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand qr" -l smtp-login -d 'Login name at the SMTP server: `local` for the part before the @, or a template as in the configuration' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand qr" -l port -d 'Port at which clients reach this deltapush, if it differs from the listener\'s port' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand qr" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand qr" -l link -d 'Print the code as text instead of a picture; the text contains the password'
complete -c deltapush -n "__fish_deltapush_using_subcommand qr" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand status" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand status" -l long -d 'Show every account in full, regardless of their number'
complete -c deltapush -n "__fish_deltapush_using_subcommand status" -l json -d 'Print JSON, for programs'
complete -c deltapush -n "__fish_deltapush_using_subcommand status" -l quiet -d 'Print nothing: exit with 0 if deltapush answers, as health checks of containers want it'
complete -c deltapush -n "__fish_deltapush_using_subcommand status" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and not __fish_seen_subcommand_from forget rewatch help" -l server -d 'Mail server, if the login name exists on several of them (or write NAME@SERVER)' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and not __fish_seen_subcommand_from forget rewatch help" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and not __fish_seen_subcommand_from forget rewatch help" -l json -d 'Print JSON, for programs'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and not __fish_seen_subcommand_from forget rewatch help" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and not __fish_seen_subcommand_from forget rewatch help" -a "forget" -d 'Erase the account: its tokens, stored credentials, watch and history'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and not __fish_seen_subcommand_from forget rewatch help" -a "rewatch" -d 'Restart the watch now, also after a refused login or while it waits for its next attempt'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and not __fish_seen_subcommand_from forget rewatch help" -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from forget" -l server -d 'Mail server, if the login name exists on several of them (or write NAME@SERVER)' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from forget" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from forget" -l yes -d 'Do not ask for confirmation'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from forget" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from rewatch" -l server -d 'Mail server, if the login name exists on several of them (or write NAME@SERVER)' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from rewatch" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from rewatch" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from help" -f -a "forget" -d 'Erase the account: its tokens, stored credentials, watch and history'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from help" -f -a "rewatch" -d 'Restart the watch now, also after a refused login or while it waits for its next attempt'
complete -c deltapush -n "__fish_deltapush_using_subcommand account; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c deltapush -n "__fish_deltapush_using_subcommand push-test" -l server -d 'Mail server, if the login name exists on several of them (or write NAME@SERVER)' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand push-test" -l device -d 'Wake only this device: the short hash of its token, or its first characters' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand push-test" -l wait -d 'Time to wait until the devices connect, 10m at most; Ctrl-C ends the wait' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand push-test" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand push-test" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l mailbox -d 'Mailbox of the message, if it is not INBOX' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l uid -d 'UID of the message; counts from root and the user of deltapush only' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l uidvalidity -d 'UIDVALIDITY of the mailbox' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l from -d 'Sender of the message, in place of a message on standard input' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l socket -d 'Socket of deltapush [default: /run/deltapush/news.sock, else the one of the configuration]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l timeout -d 'Time limit, at most 60s' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l never-fail -d 'Exit with 0 also where the news is not accepted, so that a delivery goes on; the reason is on standard error'
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -l make-token -d 'Make a token for the hook; print it, and the line for `news.tokens` in the configuration'
complete -c deltapush -n "__fish_deltapush_using_subcommand news" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -l account -d 'Show only sessions of accounts with this login name, including the part before the login' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -l session -d 'Show only this session, by its ID in trace and log: 7 (or \'#7\') for a client\'s, watch-7 for one of deltapush\'s own' -r
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -l side -d 'Show only one side: between client and deltapush, or between deltapush and the mail server' -r -f -a "client\t''
upstream\t''"
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -l literals -d 'Show literals too (mostly messages); never secrets'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -l json -d 'Print JSON Lines, the input of `export`'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -f -a "show" -d 'Print a trace file (JSON Lines) in readable form'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -f -a "export" -d 'Anonymize a trace file (JSON Lines): addresses, subjects and the names of people and hosts are replaced, each by the same word everywhere'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and not __fish_seen_subcommand_from show export help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and __fish_seen_subcommand_from show" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and __fish_seen_subcommand_from export" -l to -d 'Output file, which must not exist yet; default: standard output' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and __fish_seen_subcommand_from export" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print a trace file (JSON Lines) in readable form'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and __fish_seen_subcommand_from help" -f -a "export" -d 'Anonymize a trace file (JSON Lines): addresses, subjects and the names of people and hosts are replaced, each by the same word everywhere'
complete -c deltapush -n "__fish_deltapush_using_subcommand trace; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and not __fish_seen_subcommand_from check backup move rotate-key help" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and not __fish_seen_subcommand_from check backup move rotate-key help" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and not __fish_seen_subcommand_from check backup move rotate-key help" -f -a "check" -d 'Check that the state is valid and that the key opens it; change nothing'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and not __fish_seen_subcommand_from check backup move rotate-key help" -f -a "backup" -d 'Copy the state into a new file, also while deltapush runs; the copy does not contain the key'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and not __fish_seen_subcommand_from check backup move rotate-key help" -f -a "move" -d 'Move the state from the file in `storage.directory` into the database of `storage.postgres`, for several nodes; or back'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and not __fish_seen_subcommand_from check backup move rotate-key help" -f -a "rotate-key" -d 'Seal all passwords with a new key; deltapush must not be running, on any machine'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and not __fish_seen_subcommand_from check backup move rotate-key help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from check" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from backup" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from backup" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from move" -l to -d 'New place of the state' -r -f -a "postgres\t'The database of `storage.postgres`'
sqlite\t'The file in `storage.directory`; remove `storage.postgres` from the configuration afterwards'"
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from move" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from move" -l undo -d 'Take back an earlier move to this place: use the old place again as it was then, without later changes'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from move" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from rotate-key" -l new-key-file -d 'File with the new key, 32 bytes in base64; required if the key comes from systemd or the environment' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from rotate-key" -l config -d 'Configuration file [default: config.yaml in the current folder; except for `run`, else that of the service, /etc/deltapush/config.yaml]' -r -F
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from rotate-key" -s h -l help -d 'Print help'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "check" -d 'Check that the state is valid and that the key opens it; change nothing'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "backup" -d 'Copy the state into a new file, also while deltapush runs; the copy does not contain the key'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "move" -d 'Move the state from the file in `storage.directory` into the database of `storage.postgres`, for several nodes; or back'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "rotate-key" -d 'Seal all passwords with a new key; deltapush must not be running, on any machine'
complete -c deltapush -n "__fish_deltapush_using_subcommand state; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "run" -d 'Serve until SIGTERM or SIGINT (Ctrl-C); this is the default'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "check" -d 'Check the configuration, the files that it names, ports and folders; print the resulting setup, change nothing'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "doctor" -d 'Check everything that a push needs: service, DNS name, ports, certificate, mail servers, notification server, clock, accounts; print what helps'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "init" -d 'Create a configuration for a mail address: find its server, read its capabilities, choose ports and certificate; then start the service and print the login code'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "qr" -d 'Print the login code that sets up Delta Chat in one scan; asks for the password and does not store it'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "status" -d 'Show the status of the running server and its accounts'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "account" -d 'Show the recent history of an account, from the new message to the device\'s connection; or erase the account, or restart its watch'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "push-test" -d 'Wake an account\'s devices once and wait until they connect'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "news" -d 'Tell deltapush of the new message on standard input, as pipes of a mail server do; for routes with `news: server` or `news: both`'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "trace" -d 'Follow the protocol of running sessions until Ctrl-C'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "state" -d 'Check, copy, move or re-seal the stored state: accounts, tokens, sealed passwords'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and not __fish_seen_subcommand_from run check doctor init qr status account push-test news trace state help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and __fish_seen_subcommand_from account" -f -a "forget" -d 'Erase the account: its tokens, stored credentials, watch and history'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and __fish_seen_subcommand_from account" -f -a "rewatch" -d 'Restart the watch now, also after a refused login or while it waits for its next attempt'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and __fish_seen_subcommand_from trace" -f -a "show" -d 'Print a trace file (JSON Lines) in readable form'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and __fish_seen_subcommand_from trace" -f -a "export" -d 'Anonymize a trace file (JSON Lines): addresses, subjects and the names of people and hosts are replaced, each by the same word everywhere'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "check" -d 'Check that the state is valid and that the key opens it; change nothing'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "backup" -d 'Copy the state into a new file, also while deltapush runs; the copy does not contain the key'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "move" -d 'Move the state from the file in `storage.directory` into the database of `storage.postgres`, for several nodes; or back'
complete -c deltapush -n "__fish_deltapush_using_subcommand help; and __fish_seen_subcommand_from state" -f -a "rotate-key" -d 'Seal all passwords with a new key; deltapush must not be running, on any machine'
