//! What became of mirrors that were asked first.

use std::sync::PoisonError;

use super::Client;
use super::endpoint::Endpoint;
use super::error::{Error, InVain};
use crate::reference::Reference;

/// The mirrors that gave nothing, each with why.
#[derive(Default)]
pub(super) struct Passed(Vec<String>);

impl Passed {
    /// Notes why a mirror is passed; people hear of it once, unless it only lacks what was asked for.
    pub(super) fn add(
        &mut self,
        client: &Client,
        mirror: &Endpoint,
        reference: &Reference,
        error: Error,
    ) {
        let lacks = error.is_not_found();
        let why = error.brief();
        let place = mirror.key();
        if !lacks && client.fails_first(&place) {
            client.transport().doubt(format!(
                "the mirror `{place}` of `{}` fails, and the next place is asked: {why}",
                reference.domain()
            ));
        }
        self.0.push(format!("`{place}` ({why})"));
    }

    /// Adds to the error of the last place which ones were asked before it.
    pub(super) fn add_to(self, mut error: Error) -> Error {
        if let Some(attempt) = error.attempt_mut()
            && !self.0.is_empty()
        {
            attempt.mirrors = Some(Box::new(InVain(self.0.join(", "))));
        }
        error
    }
}

impl Client {
    /// Tells whether a mirror is not known to fail, and knows it from then on.
    fn fails_first(&self, place: &str) -> bool {
        let failing = self.shared.failing.lock();
        let mut failing = failing.unwrap_or_else(PoisonError::into_inner);
        failing.insert(place.to_owned())
    }
}
