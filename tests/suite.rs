//! Every test that runs the program as its users do: by its command line, its files and its sockets. One binary, since
//! each one links pingora.
//!
//! `cargo test --test suite`, or a part of it: `cargo e2e`, `cargo test --test suite config_cases`.

mod chaos;
mod config_cases;
mod crash;
mod e2e;
mod fuzzed;
mod harness;
