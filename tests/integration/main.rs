//! deltapush as a whole: the real binary between real clients and real or scripted servers.
//!
//! `scripts/test` installs what these tests need; a test whose server is missing fails and says what to install.
#![expect(clippy::arithmetic_side_effects, reason = "an overflow in a test is a failed test")]

#[cfg(test)]
mod certificates;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod cores;
#[cfg(test)]
mod dovecot;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod posting;
#[cfg(test)]
mod providers;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod support;
#[cfg(test)]
mod traps;
#[cfg(test)]
mod watching;
