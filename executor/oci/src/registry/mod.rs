//! The registry protocol (OCI distribution-spec 1.1): pull, push, and who may.

mod config;
mod credentials;
mod error;

pub use config::{Config, ConfigError, Mirror, RetryPolicy};
pub use credentials::{Anonymous, Credential, Credentials, CredentialsError, DockerConfig, Fixed};
pub use error::{Attempt, Error};
