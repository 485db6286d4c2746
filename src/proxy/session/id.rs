//! The client's ID command (RFC 2971): the mail server gets it with deltapush's name added.

use super::Session;
use super::pending::push_client_string;
use crate::machine::Actions;
use crate::parser::id::{self, Field};
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
            self.say(out, b"* ID (\"name\" \"deltapush\")\r\n");
            return self.reply("OK ID completed", out);
        }
        match fields {
            Some(fields) => {
                let (command, cuts) = id_command(&self.client.tag, &with_own_name(&fields));
                self.replay(&command, &cuts, out);
            }
            // Not to be had by one field too many.
            None if may_speak_for_others(command) => {
                self.reply(own_lines::ID_SYNTAX, out);
            }
            // Whatever it is: the server says what it thinks of it.
            None => self.replay(command, cuts, out),
        }
    }
}

/// The command, and where its literals have to wait.
fn id_command(tag: &[u8], fields: &[Field]) -> (Vec<u8>, Vec<usize>) {
    let mut command = [tag, b" ID ("].concat();
    let mut cuts = vec![];
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            command.push(b' ');
        }
        push_client_string(&mut command, &mut cuts, name);
        command.push(b' ');
        match value {
            Some(value) => push_client_string(&mut command, &mut cuts, value),
            None => command.extend_from_slice(b"NIL"),
        }
    }
    command.extend_from_slice(b")\r\n");
    (command, cuts)
}
