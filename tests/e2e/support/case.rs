//! One case and what it needs of the host.

use libtest_mimic::{Failed, Trial};

use super::capability::{Capability, missing};
use super::world::World;

/// A named piece of proof.
pub(crate) struct Case {
    name: &'static str,
    needs: &'static [Capability],
    run: fn(&World),
    lacks: Option<String>,
}

/// Makes a case; `run` panics to fail.
pub(crate) fn case(name: &'static str, needs: &'static [Capability], run: fn(&World)) -> Case {
    Case {
        name,
        needs,
        run,
        lacks: None,
    }
}

impl Case {
    /// Says what else is missing here, if something is.
    pub(crate) fn lacks(self, words: Option<String>) -> Case {
        Case {
            lacks: words,
            ..self
        }
    }

    /// Makes what the test runner takes; a case that cannot run here says why in its kind.
    pub(crate) fn into_trial(self, room: &'static str) -> Trial {
        let name = format!("{room}::{}", self.name);
        let Some(lacking) = missing(self.needs).or(self.lacks) else {
            return Trial::test(name, move || {
                let world = World::new(room, self.name);
                (self.run)(&world);
                world.finish().map_err(Failed::from)
            });
        };
        let words = format!("needs {lacking}");
        let required = std::env::var_os("KILN_TEST_REQUIRE").is_some_and(|value| value != "0");
        let failure = words.clone();
        Trial::test(name, move || Err(Failed::from(failure)))
            .with_kind(words)
            .with_ignored_flag(!required)
    }
}
