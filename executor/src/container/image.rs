//! Finding the image that a program runs in: the store by name, by id, and at last a registry.

use kiln_ir::{ImageConfig, Platform, ResolveMode};
use kiln_oci::reference::Reference;
use kiln_store::{Content, Lease};
use kiln_tree::Stop;

use super::request::{PullEvent, PullObserver};
use crate::error::Error;
use crate::executor::{Executor, host_platform};
use crate::images::{member_for, platform_of_programs};
use crate::source::{Resolver, blocking, fetch};

/// An image whose layers are in the store and leased.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) config: ImageConfig,
    /// What its programs are for.
    pub(crate) platform: Platform,
    /// Lowest first.
    pub(crate) layers: Vec<Content>,
}

/// Whether a registry is asked for an image that is not here.
pub(crate) enum Pulls {
    /// No.
    Never,
    /// Yes, and nobody is told.
    Silently,
    /// Yes, and this is told.
    Told(PullObserver),
}

/// Finds an image by what was typed, and pulls it where it is not here.
///
/// Of an image for several platforms it is the one for `platform`, or for the host; an image for one
/// other is taken unless `platform` says otherwise.
pub(crate) async fn find(
    executor: &Executor,
    lease: &Lease,
    typed: &str,
    platform: Option<&Platform>,
    pulls: Pulls,
) -> Result<Found, Error> {
    let wanted = platform.cloned().unwrap_or_else(host_platform);
    let stored = blocking({
        let (executor, lease, typed) = (executor.clone(), lease.clone(), typed.to_owned());
        let wanted = wanted.clone();
        move || {
            let image = executor.stored_image(&lease, &typed)?;
            let choose = |image| member_for(executor.store(), &lease, image, &wanted, &typed);
            image.map(choose).transpose()
        }
    })
    .await?;
    let (config, layers) = match stored {
        Some(image) => {
            let config =
                ImageConfig::from_json(&image.config).map_err(|source| Error::Document {
                    what: "config",
                    reference: typed.to_owned(),
                    source: source.into(),
                })?;
            (config, image.layers)
        }
        None if is_id(typed) => {
            return Err(Error::NoSuchImage {
                name: typed.to_owned(),
            });
        }
        None => pull(executor, lease, typed, &wanted, pulls).await?,
    };
    let platform = platform_of_programs(&config, typed, platform)?;
    Ok(Found {
        config,
        platform,
        layers,
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
    pulls: Pulls,
) -> Result<(ImageConfig, Vec<Content>), Error> {
    let reference = Reference::parse(typed)?.familiar();
    let tell = |event| {
        if let Pulls::Told(observer) = &pulls {
            observer.tell(event);
        }
    };
    let resolver = Resolver::new(executor);
    // What was pulled before is there without a request, so there is nothing to announce.
    let image = match resolver.image(typed, platform, ResolveMode::Local).await {
        Ok(image) => image,
        Err(Error::Offline { .. }) if matches!(pulls, Pulls::Never) => {
            return Err(Error::NoSuchImage {
                name: typed.to_owned(),
            });
        }
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
    Ok((image.config, layers))
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
    fn programs_are_for_what_the_image_says() {
        let check = |config: &str, wanted: Option<&str>, expected: Result<&str, ()>| {
            let parsed = ImageConfig::from_json(config.as_bytes()).unwrap();
            let wanted = wanted.map(|text| Platform::parse(text).unwrap());
            let found = platform_of_programs(&parsed, "app", wanted.as_ref());
            let found = found.map(|platform| platform.to_string()).map_err(drop);
            assert_eq!(found.as_deref(), expected.as_ref().copied(), "{config}");
        };
        let arm64 = r#"{"os":"linux","architecture":"aarch64"}"#;
        let host = host_platform().to_string();
        check(arm64, None, Ok("linux/arm64"));
        check(arm64, Some("linux/arm64"), Ok("linux/arm64"));
        check(arm64, Some("linux/s390x"), Err(()));
        check("{}", None, Ok(&host));
        check("{}", Some(&host), Ok(&host));
        check(
            r#"{"os":"windows","architecture":"amd64"}"#,
            None,
            Ok("windows/amd64"),
        );
    }
}
