//! The `kiln` command.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    // Steps run in re-executions of this binary; nothing may happen before that is told apart.
    kiln::init_if_requested();
    kiln::ignore_file_size_signal();
    cli::main()
}
