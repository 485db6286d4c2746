# After the users' own scripts, for messages that stay in INBOX. `:try`: the message is kept whatever becomes of the program.
require ["copy", "vnd.dovecot.pipe"];
keep;
pipe :copy :try "deltapush-news";
