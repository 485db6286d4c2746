//! The client's ID command (RFC 2971): the mail server gets it with deltapush's name added.

use super::Session;
use crate::machine::Actions;
use crate::parser::id;
use crate::parser::outgoing_command::{OutgoingCommand, PairName};
use crate::proxy::own_lines;
use crate::upstream::id::{may_speak_for_others, with_own_name};

impl Session {
    /// Hands an ID on with deltapush's name in it. To a server that does not offer ID nothing is said: some hang up then.
    pub(super) fn answer_id(
        &mut self,
        command: &[u8],
        cuts: &[usize],
        out: &mut impl Actions<Session>,
    ) {
        let fields = id::fields(command);
        self.visit.id(fields.as_deref().unwrap_or_default());
        if !self.upstream.id {
            self.send_own(out, b"* ID (\"name\" \"deltapush\")\r\n");
            return self.reply("OK ID completed", out);
        }
        match fields {
            Some(fields) => {
                let fields = with_own_name(&fields);
                let pairs =
                    fields.iter().map(|(name, value)| (PairName::String(name), value.as_deref()));
                let command = OutgoingCommand::new(&self.client.tag, b"ID").pairs(pairs);
                let (command, cuts) = command.end();
                self.replay(&command, &cuts, out);
            }
            // Not to be had by one field too many.
            None if may_speak_for_others(command) => {
                self.reply(own_lines::ID_SYNTAX, out);
            }
            // Any other malformed ID: the server answers it.
            None => self.replay(command, cuts, out),
        }
    }
}
