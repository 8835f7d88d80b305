//! Lowering for a question: images that cannot be looked at now are taken as they come.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_executor::{Resolver, Secrets, words};
use kiln_frontend::lower::{Answers, ImageAnswer, Lowering, Question, lower};
use kiln_ir::ResolveMode;

use crate::Kiln;
use crate::delivery::Asker;
use crate::dockerfile::{Loaded, answer};

/// A lowering, and the images that nobody could look at, each with why.
pub(super) struct Looked {
    pub(super) lowering: Lowering,
    pub(super) unseen: Vec<(String, String)>,
}

/// Who asks where a question is all there is: nobody proves anything.
pub(super) fn asker(kiln: &Kiln) -> Asker {
    Asker::new(
        Arc::new(Resolver::new(&kiln.executor).without_layers()),
        Secrets::default(),
    )
}

/// Lowers with what store and registries say; only a registry's refusal is an error.
pub(super) async fn look(resolver: &Arc<Resolver>, loaded: &Loaded, mode: ResolveMode) -> Looked {
    let locals = Arc::new(loaded.locals.clone());
    let mut answers = Answers::default();
    let mut unseen = BTreeMap::new();
    loop {
        let questions = match lower(&loaded.input, &answers) {
            Lowering::Needs(questions) => questions,
            lowering => {
                let unseen = unseen.into_iter().collect();
                return Looked { lowering, unseen };
            }
        };
        let (locked, questions): (Vec<_>, Vec<_>) = questions
            .into_iter()
            .map(|question| (loaded.lock.image(&question), question))
            .partition(|(image, _)| image.is_some());
        for (image, question) in locked {
            answers.image(question, image.unwrap_or(ImageAnswer::Assumed));
        }
        let questions = questions.into_iter().map(|(_, question)| question);
        // What is asked here depends on no time.
        let is_time = |question: &Question| matches!(question, Question::SourceTime { .. });
        let (times, images) = questions.into_iter().partition(is_time);
        answers.assume(times);
        for (question, found) in answer(images, resolver, &locals, mode).await {
            let given = match found {
                Ok(image) => ImageAnswer::Resolved {
                    config: Box::new(image.config),
                    digest: image.manifest_digest,
                },
                Err(error) if error.is_refusal() => ImageAnswer::Unavailable {
                    reason: words(&error),
                    help: error.hint(),
                },
                Err(error) => {
                    unseen.insert(question.reference().to_owned(), words(&error));
                    ImageAnswer::Assumed
                }
            };
            answers.image(question, given);
        }
    }
}

/// Lowers without asking anybody.
pub(super) fn assume(loaded: &Loaded) -> Looked {
    let mut answers = Answers::default();
    loop {
        match lower(&loaded.input, &answers) {
            Lowering::Needs(questions) => answers.assume(questions),
            lowering => {
                return Looked {
                    lowering,
                    unseen: Vec::new(),
                };
            }
        }
    }
}
