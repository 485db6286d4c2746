//! The Dovecot of this machine: its version, and its settings for news, as `doveconf` prints them.

use std::path::{Path, PathBuf};

use super::command::asked;

/// The folder of plugins, where Dovecot does not name it.
const PLUGINS: &str = "/usr/lib/dovecot/modules";

/// The plugin that runs Lua for each new message.
const LUA_PLUGIN: &str = "lib22_push_notification_lua_plugin.so";

/// A Dovecot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct DovecotFacts {
    /// Its version, such as `2.3.19.1`.
    pub(in super::super) version: String,
    /// Its configuration file.
    pub(in super::super) file: PathBuf,
    /// Its settings that are not the default.
    pub(in super::super) settings: String,
    /// True if it can run Lua for each new message.
    pub(in super::super) has_lua: bool,
}

impl DovecotFacts {
    /// Asks Dovecot. `None` if there is none, or if its configuration cannot be read.
    pub(in super::super) async fn look() -> Option<Self> {
        let settings = asked("doveconf", &["-n"]).await?;
        let (version, file) = version_and_file(&settings)?;
        let plugins = asked("doveconf", &["-h", "mail_plugin_dir"]).await;
        let plugins = plugins.map_or(PathBuf::from(PLUGINS), |folder| folder.trim().into());
        Some(Self { has_lua: plugins.join(LUA_PLUGIN).exists(), version, file, settings })
    }

    /// True for the syntax of Dovecot 2.3 and older.
    pub(in super::super) fn is_before_24(&self) -> bool {
        ["2.0.", "2.1.", "2.2.", "2.3."].iter().any(|old| self.version.starts_with(old))
    }

    /// Its folder of further configuration files, if it reads one.
    pub(in super::super) fn conf_d(&self) -> Option<PathBuf> {
        let folder = self.file.parent()?.join("conf.d");
        folder.is_dir().then_some(folder)
    }

    /// Its settings, each in a line, that make it tell deltapush of new messages.
    pub(in super::super) fn news_settings(&self) -> Vec<&str> {
        let is_one = |line: &&str| {
            !line.starts_with('#')
                && ["deltapush", "/v1/news"].iter().any(|word| line.contains(word))
        };
        self.settings.lines().map(str::trim).filter(is_one).collect()
    }

    /// The Lua script that it runs, if that is deltapush's.
    pub(in super::super) fn script(&self) -> Option<&Path> {
        let scripts = self.news_settings().into_iter().filter_map(|line| line.rsplit('=').next());
        scripts
            .map(|path| Path::new(path.trim()))
            .find(|path| path.extension().is_some_and(|end| end == "lua"))
    }
}

/// The first line is `# VERSION (COMMIT): FILE`.
fn version_and_file(settings: &str) -> Option<(String, PathBuf)> {
    let (version, file) = settings.lines().next()?.strip_prefix("# ")?.split_once(": ")?;
    Some((version.split(' ').next()?.to_owned(), PathBuf::from(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(settings: &str) -> DovecotFacts {
        let (version, file) = version_and_file(settings).unwrap();
        DovecotFacts { version, file, settings: settings.to_owned(), has_lua: true }
    }

    #[test]
    fn version_and_settings_are_read() {
        let old = facts(
            "# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf\nplugin {\n  push_notification_driver = \
             lua:file=/usr/share/deltapush/dovecot/deltapush.lua\n}\n",
        );
        assert!(old.is_before_24() && old.file == Path::new("/etc/dovecot/dovecot.conf"));
        let script = Some(Path::new("/usr/share/deltapush/dovecot/deltapush.lua"));
        assert_eq!(old.script(), script);
        let new = facts(
            "# 2.4.1-4 (7d8c0e5): /etc/dovecot/dovecot.conf\npush_notification deltapush {\n  driver = lua\n  lua_file = \
             /usr/share/deltapush/dovecot/deltapush.lua\n}\n",
        );
        assert!(!new.is_before_24() && new.script() == script);
        let ox = facts(
            "# 2.3.21 (1): /etc/dovecot/dovecot.conf\nplugin {\n  push_notification_driver = \
             ox:url=http://127.0.0.1:1981/v1/news\n}\n",
        );
        assert!(ox.script().is_none() && ox.news_settings().len() == 1);
        let without = facts("# 2.3.21 (1): /etc/dovecot/dovecot.conf\n# Hostname: deltapush\n");
        assert!(without.news_settings().is_empty());
    }
}
