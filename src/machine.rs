//! The contract of all machines: input and time in, actions out, and a deadline.
//!
//! A machine is protocol logic without runtime, socket, clock or configuration. Its driver hands it what came, does what it
//! asks for, and comes back at its deadline at the latest.

#[cfg(test)]
pub(crate) mod script;

use std::time::Instant;

/// A protocol machine.
pub trait Machine {
    /// Input: bytes or a response from a peer, the answer to a question that the machine asked by an action, or nothing
    /// but time.
    type Input<'a>;

    /// Work for the driver, in the order of the actions. A question to the driver is an action, too; its answer is an
    /// input.
    type Action<'a>;

    /// Takes an input that came at `now`.
    fn handle(&mut self, input: Self::Input<'_>, now: Instant, actions: &mut impl Actions<Self>)
    where
        Self: Sized;

    /// When the machine wants to be called although nothing came; `None` if it does not.
    fn deadline(&self) -> Option<Instant>;
}

/// The receiver of a machine's actions.
pub trait Actions<M: Machine> {
    /// Takes the next action.
    fn push(&mut self, action: M::Action<'_>);
}

impl<M: Machine, F: FnMut(M::Action<'_>)> Actions<M> for F {
    fn push(&mut self, action: M::Action<'_>) {
        self(action);
    }
}

/// Actions that own what they carry may be collected.
impl<A, M> Actions<M> for Vec<A>
where
    M: for<'a> Machine<Action<'a> = A>,
{
    fn push(&mut self, action: A) {
        self.push(action);
    }
}
