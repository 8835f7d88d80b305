//! Sources and contexts from elsewhere: files over http and git repositories, from real servers on
//! loopback.

mod contexts;
mod files;
mod locks;
mod questions;
mod repositories;
pub(crate) mod server;
mod ssh;

use crate::support::{Case, Ran};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = files::cases();
    cases.extend(repositories::cases());
    cases.extend(contexts::cases());
    cases.extend(locks::cases());
    cases.extend(ssh::cases());
    cases.extend(questions::cases());
    cases
}

/// What a run says of its failure, without the steps before it.
fn error_of(ran: &Ran) -> &str {
    let start = ran.stderr.find("error:").unwrap_or_default();
    &ran.stderr[start..]
}
