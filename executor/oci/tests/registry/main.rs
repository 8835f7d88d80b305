//! The registry client against a registry that misbehaves on demand, and against Debian's.

#![allow(clippy::unwrap_used)]

mod auth;
mod challenges;
mod credentials;
mod faults;
mod hosts;
mod login;
mod mirrors;
mod proxy;
mod real;
mod transfer;
mod trust;
mod uploads;

use std::time::Duration;

use futures_util::TryStreamExt as _;
use kiln_oci::document::Descriptor;
use kiln_oci::reference::Reference;
use kiln_oci::registry::{Client, Config, Error, RetryPolicy};
use kiln_test_registry::Registry;

/// Settings that no environment reaches, and that wait for milliseconds.
fn config() -> Config {
    let retry = RetryPolicy {
        attempts: 4,
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(4),
        idle_timeout: Duration::from_millis(500),
        ..RetryPolicy::default()
    };
    Config {
        retry,
        system_roots: false,
        ..Config::default()
    }
}

fn client() -> Client {
    Client::new(config())
}

fn reference(registry: &Registry, name: &str) -> Reference {
    Reference::parse(&format!("{}/{name}", registry.host())).unwrap()
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn describe(bytes: &[u8]) -> Descriptor {
    Descriptor::of("application/octet-stream", bytes)
}

async fn fetch(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, Error> {
    let pieces: Vec<_> = client.blob(reference, descriptor).try_collect().await?;
    Ok(pieces.concat())
}

/// Shows an error with its causes, the ports taken out.
fn show(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    let mut shown = String::new();
    for (at, part) in text.split("127.0.0.1:").enumerate() {
        if at > 0 {
            shown.push_str("HOST");
        }
        shown.push_str(if at > 0 {
            part.trim_start_matches(|c: char| c.is_ascii_digit())
        } else {
            part
        });
    }
    shown
}
