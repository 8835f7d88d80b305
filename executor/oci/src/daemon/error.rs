//! What can go wrong with a docker engine.

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The address is none that can be reached.
    #[error("cannot reach a docker engine at `{host}`: {reason}")]
    Address {
        /// As given.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A document of docker's settings cannot be used.
    #[error("cannot find out which docker engine the context `{context}` means: {reason}")]
    Context {
        /// Its name.
        context: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificates and keys for it cannot be used.
    #[error("cannot reach the docker engine at `{at}`: {reason}")]
    Tls {
        /// Its address.
        at: String,
        /// What is wrong with them.
        reason: String,
    },
    /// No connection could be made, or it broke.
    #[error("cannot {attempt} at the docker engine `{at}`: {}", innermost(.cause.as_ref()))]
    Lost {
        /// What was tried.
        attempt: String,
        /// Its address.
        at: String,
        /// Nobody took a connection.
        unconnected: bool,
        /// How it ended.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Nothing was heard for too long.
    #[error("cannot {attempt} at the docker engine `{at}`: nothing was heard for {seconds} s")]
    Silent {
        /// What was tried.
        attempt: String,
        /// Its address.
        at: String,
        /// For how long.
        seconds: u64,
    },
    /// It refused.
    #[error("cannot {attempt} at the docker engine `{at}`: it answered {status}{}", detail(.message))]
    Refused {
        /// What was tried.
        attempt: String,
        /// Its address.
        at: String,
        /// The status.
        status: u16,
        /// Its words, if any.
        message: String,
    },
    /// It says what nobody can read.
    #[error("cannot {attempt} at the docker engine `{at}`: its answer is malformed")]
    Document {
        /// What was tried.
        attempt: String,
        /// Its address.
        at: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It says more than anybody needs to know.
    #[error("cannot {attempt} at the docker engine `{at}`: its answer has more than {limit} bytes")]
    TooLong {
        /// What was tried.
        attempt: String,
        /// Its address.
        at: String,
        /// The most that is read.
        limit: usize,
    },
}

impl DaemonError {
    /// Whether nothing listens there, or not for this user: as if there were no engine.
    pub fn is_absent(&self) -> bool {
        matches!(
            self,
            Self::Lost {
                unconnected: true,
                ..
            }
        )
    }
}

fn detail(message: &str) -> String {
    match message.is_empty() {
        true => String::new(),
        false => format!(" ({message})"),
    }
}

/// The cause that tells most: the client's own words name an address that nobody knows.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    // Chains are short; the bound is for ones that are not.
    for _ in 0..32 {
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    cause.to_string()
}
