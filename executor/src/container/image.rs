//! Finding the image that a program runs in: the store by name, by id, and at last a registry.

use kiln_ir::{ImageConfig, Platform, ResolveMode};
use kiln_oci::reference::Reference;
use kiln_store::{Content, Image, Lease};
use kiln_tree::Stop;

use super::request::{PullEvent, PullObserver};
use crate::error::Error;
use crate::executor::{Executor, host_platform};
use crate::source::{Resolver, blocking, fetch};

/// An image whose layers are in the store and leased.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) config: ImageConfig,
    /// Lowest first.
    pub(super) layers: Vec<Content>,
}

/// Finds an image by what was typed, and pulls it where it is not here.
pub(super) async fn find(
    executor: &Executor,
    lease: &Lease,
    typed: &str,
    observer: Option<PullObserver>,
) -> Result<Found, Error> {
    let platform = host_platform();
    let stored = blocking({
        let (executor, lease, typed) = (executor.clone(), lease.clone(), typed.to_owned());
        move || executor.stored_image(&lease, &typed)
    })
    .await?;
    match stored {
        Some(image) => of_store(image, typed, &platform),
        None if is_id(typed) => Err(Error::NoSuchImage {
            name: typed.to_owned(),
        }),
        None => pull(executor, lease, typed, &platform, observer).await,
    }
}

fn of_store(image: Image, typed: &str, platform: &Platform) -> Result<Found, Error> {
    let config = ImageConfig::from_json(&image.config).map_err(|source| Error::Document {
        what: "config",
        reference: typed.to_owned(),
        source: source.into(),
    })?;
    let found = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        ..Platform::default()
    }
    .normalized();
    let fits = (found.os.is_empty() || found.os == platform.os)
        && (found.architecture.is_empty() || found.architecture == platform.architecture);
    if !fits {
        return Err(Error::Platform {
            reference: typed.to_owned(),
            found: found.to_string(),
            wanted: platform.to_string(),
        });
    }
    Ok(Found {
        config,
        layers: image.layers,
    })
}

/// Whether it can only be meant as an id: no registry has such a name.
fn is_id(typed: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match typed.strip_prefix("sha256:") {
        Some(digits) => hex(digits),
        None => typed.len() == 64 && hex(typed),
    }
}

/// Asks a registry, or takes what it said when the image was the base of a build.
async fn pull(
    executor: &Executor,
    lease: &Lease,
    typed: &str,
    platform: &Platform,
    observer: Option<PullObserver>,
) -> Result<Found, Error> {
    let reference = Reference::parse(typed)?.familiar();
    let tell = |event| {
        if let Some(observer) = &observer {
            observer.tell(event);
        }
    };
    let resolver = Resolver::new(executor);
    // What was pulled before is there without a request, so there is nothing to announce.
    let image = match resolver.image(typed, platform, ResolveMode::Local).await {
        Ok(image) => image,
        Err(Error::Offline { .. }) if !executor.options().offline => {
            tell(PullEvent::Asking { reference });
            resolver
                .image(typed, platform, ResolveMode::Default)
                .await?
        }
        Err(error) => return Err(error),
    };
    let (layers, brought) = fetch(executor, lease, &image, None, &Stop::NEVER).await?;
    if brought {
        tell(PullEvent::Done { label: image.label });
    }
    Ok(Found {
        config: image.config,
        layers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_asked_for() {
        let check = |typed: &str, expected: bool| assert_eq!(is_id(typed), expected, "{typed}");
        check("sha256:9f2c41d07b3e", true);
        check(&"a".repeat(64), true);
        check("beef", false);
        check("alpine", false);
        check("sha256:latest", false);
    }

    #[test]
    fn images_of_other_platforms_are_refused() {
        let check = |config: &str, fits: bool| {
            let image = Image {
                id: kiln_store::ImageId([0; 32]),
                manifest: Vec::new(),
                config: config.as_bytes().to_vec(),
                layers: Vec::new(),
                size_bytes: 0,
                created: std::time::UNIX_EPOCH,
                added: std::time::UNIX_EPOCH,
            };
            assert_eq!(
                of_store(image, "app", &Platform::linux("amd64")).is_ok(),
                fits,
                "{config}"
            );
        };
        check(r#"{"os":"linux","architecture":"amd64"}"#, true);
        check(r#"{"os":"linux","architecture":"x86_64"}"#, true);
        check("{}", true);
        check(r#"{"os":"linux","architecture":"arm64"}"#, false);
        check(r#"{"os":"windows","architecture":"amd64"}"#, false);
        check("{", false);
    }
}
