//! Several nodes that share one PostgreSQL: accounts, watches and pushes belong to one node at a time, whatever happens to nodes,
//! the database, and the ways between them.

mod balancer;
mod certificates;
mod commands;
mod core;
mod database;
mod facts;
mod faults;
mod moving;
mod news;
mod nodes;
mod scene;
mod sharing;
mod state;
mod unconfirmed;
