//! The program: `kiln build --frontend kiln-debian -f debian.toml .`
#![allow(clippy::print_stderr)]

use std::io::{BufReader, stdin, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    match kiln_debian::session::serve(BufReader::new(stdin().lock()), stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            eprintln!("kiln-debian: {error}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
