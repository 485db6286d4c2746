//! deltapush as a whole: the real binary between real clients and real or scripted servers.
//!
//! `scripts/test` installs what these tests need; a test whose server is missing fails and says what to install.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod attack;
#[cfg(test)]
mod certificates;
#[cfg(test)]
mod challenges;
#[cfg(test)]
mod checking;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod comparison;
#[cfg(test)]
mod compress;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod core_modes;
#[cfg(test)]
mod cores;
#[cfg(test)]
mod database;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod dovecot;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fetching;
#[cfg(test)]
mod first_evening;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod goodbye;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod heard;
#[cfg(test)]
mod keeping;
#[cfg(test)]
mod keeping_ends;
#[cfg(test)]
mod last_words;
#[cfg(test)]
mod left_out;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod mechanisms;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod news_command;
#[cfg(test)]
mod news_dovecot;
#[cfg(test)]
mod news_hook;
#[cfg(test)]
mod news_recipes;
#[cfg(test)]
mod next_method;
#[cfg(test)]
mod odd_commands;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod permissions;
#[cfg(test)]
mod posting;
#[cfg(test)]
mod providers;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod setup_dovecot;
#[cfg(test)]
mod shaping;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod stacks;
#[cfg(test)]
mod status;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod traps;
#[cfg(test)]
mod watching;
