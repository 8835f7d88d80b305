//! The HTTP clients: one for each host that TLS is spoken with in a way of its own, one for all
//! others.
//!
//! Redirects are followed here and not by the HTTP library, so that what one host is shown and is
//! believed goes for no other.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{AUTHORIZATION, COOKIE, LOCATION, PROXY_AUTHORIZATION};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use url::Url;

use super::config::{ClientCertificate, Config, HostTls};
use super::endpoint::is_loopback;
use super::error::Error;
use super::tls;

/// Redirects in a row that are followed.
const REDIRECT_LIMIT: usize = 10;

/// No directory of certificates has more entries that count.
const CERTIFICATE_LIMIT: usize = 100;

/// The clients so far; certificates are read when one is first needed.
#[derive(Default)]
pub(super) struct Clients {
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    /// How TLS is spoken with a `host:port`, if in a way of its own.
    hosts: HashMap<String, Option<Arc<HostTls>>>,
    clients: HashMap<Kind, Client>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    /// The `host:port` that has its own client.
    own: Option<String>,
    /// Goes to this machine, where a proxy would look at itself.
    direct: bool,
}

/// How sending a request ended.
pub(super) enum Sent {
    /// With an answer, perhaps from elsewhere.
    Answer(Response),
    /// With a redirect that is not followed.
    Astray(&'static str),
    /// Without an answer.
    Lost {
        /// Why.
        error: reqwest::Error,
        /// Whether the host was to be shown a client's certificate.
        shown: bool,
    },
}

impl Clients {
    /// Sends a request and follows where it is sent on to; proofs stay with the first host.
    pub(super) async fn send(
        &self,
        config: &Config,
        url: &Url,
        make: &impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Sent, Error> {
        let mut at = url.clone();
        let mut left = false;
        for redirects in 0.. {
            let (client, shown) = self.client(config, &at)?;
            let lost = |error| Ok(Sent::Lost { error, shown });
            let mut request = match make(&client).build() {
                Ok(request) => request,
                Err(error) => return lost(error),
            };
            if redirects > 0 {
                *request.url_mut() = at.clone();
            }
            if left {
                for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                    request.headers_mut().remove(name);
                }
            }
            let method = request.method().clone();
            let response = match client.execute(request).await {
                Ok(response) => response,
                Err(error) => return lost(error),
            };
            let follows = match response.status() {
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
                StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => {
                    matches!(method.as_str(), "GET" | "HEAD")
                }
                _ => false,
            };
            let next = response
                .headers()
                .get(LOCATION)
                .filter(|_| follows)
                .and_then(|place| at.join(place.to_str().ok()?).ok());
            let Some(mut next) = next else {
                return Ok(Sent::Answer(response));
            };
            if redirects == REDIRECT_LIMIT {
                return Ok(Sent::Astray("too many redirects"));
            }
            if at.scheme() == "https" && next.scheme() != "https" {
                return Ok(Sent::Astray("redirected from https to plain http"));
            }
            if !matches!(next.scheme(), "http" | "https") {
                return Ok(Sent::Astray("redirected to what is neither http nor https"));
            }
            // Only addresses without a host refuse this.
            let _ = next.set_username("");
            let _ = next.set_password(None);
            left |= next.origin() != url.origin();
            at = next;
        }
        unreachable!("BUG: redirects have no end")
    }

    /// Tells whether what comes from a URL's host is known to come from there: its certificate is looked at, or it
    /// is on this machine.
    pub(super) fn verifies(&self, config: &Config, url: &Url) -> bool {
        if is_loopback(url.host_str().unwrap_or_default()) {
            return true;
        }
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let own = made.hosts.get(&authority(url));
        url.scheme() == "https"
            && match own {
                Some(tls) => tls.as_ref().is_none_or(|tls| !tls.skip_verify),
                None => own_tls(config, &authority(url)).is_ok_and(|tls| tls.is_none()),
            }
    }

    /// Returns the client for a URL, and whether it shows a certificate.
    fn client(&self, config: &Config, url: &Url) -> Result<(Client, bool), Error> {
        let host = url.host_str().unwrap_or_default();
        let authority = authority(url);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let tls = match made.hosts.get(&authority) {
            Some(tls) => tls.clone(),
            None if url.scheme() != "https" => None,
            None => {
                let tls = own_tls(config, &authority)?.map(Arc::new);
                made.hosts.insert(authority.clone(), tls.clone());
                tls
            }
        };
        let kind = Kind {
            own: tls.is_some().then_some(authority),
            direct: is_loopback(host),
        };
        let tls = tls.unwrap_or_default();
        if let Some(client) = made.clients.get(&kind) {
            return Ok((client.clone(), tls.client.is_some()));
        }
        let builder = Client::builder()
            .tls_backend_preconfigured(tls::client_config(config, &tls)?)
            .user_agent(&config.user_agent)
            .connect_timeout(config.retry.connect_timeout)
            .redirect(redirect::Policy::none())
            // A URL of storage may hold a signature, which is no other host's business.
            .referer(false);
        let builder = match kind.direct {
            true => builder.no_proxy(),
            false => builder,
        };
        let client = builder.build().map_err(|source| Error::Http { source })?;
        made.clients.insert(kind, client.clone());
        Ok((client, tls.client.is_some()))
    }
}

/// `host:port`, whether or not the URL has the port.
fn authority(url: &Url) -> String {
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{}:{port}", url.host_str().unwrap_or_default())
}

/// Finds how TLS is spoken with a `host:port`, unless it is as with all others.
fn own_tls(config: &Config, authority: &str) -> Result<Option<HostTls>, Error> {
    let mut names = vec![authority];
    names.extend(authority.strip_suffix(":443"));
    if authority == "registry-1.docker.io:443" {
        names.push("docker.io");
    }
    let said = names.iter().find_map(|name| config.hosts.get(*name));
    let mut tls = said.cloned().unwrap_or_default();
    let folders = config
        .certificate_folders
        .iter()
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)));
    for folder in folders {
        if let Some(found) = read_folder(&folder)? {
            tls.ca.extend(found.ca);
            tls.client = tls.client.or(found.client);
            break;
        }
    }
    let usual = HostTls {
        required: tls.required,
        ..HostTls::default()
    };
    Ok(Some(tls).filter(|tls| *tls != usual))
}

/// Reads a directory as docker has them: each `.crt` is an authority, each `.cert` has a `.key`.
///
/// One that is not there, or is not for this user to see, says nothing.
fn read_folder(folder: &Path) -> Result<Option<HostTls>, Error> {
    let refused = |what: String| Error::Tls { what, source: None };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(refused(format!(
                "cannot read the certificates in `{}`: {error}",
                folder.display()
            )));
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .take(CERTIFICATE_LIMIT)
        .collect();
    paths.sort();
    let mut tls = HostTls::default();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.ca.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                if !key.exists() {
                    return Err(refused(format!(
                        "`{}` has no key beside it, `{}`",
                        path.display(),
                        key.display()
                    )));
                }
                // The first one counts: a host asks for one.
                tls.client
                    .get_or_insert(ClientCertificate { cert: path, key });
            }
            _ => {}
        }
    }
    Ok(Some(tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(config: &Config, authority: &str) -> Option<HostTls> {
        own_tls(config, authority).unwrap()
    }

    #[test]
    fn a_host_is_found_with_and_without_the_usual_port() {
        let own = HostTls {
            skip_verify: true,
            ..HostTls::default()
        };
        let hosts = ["a.example", "b.example:443", "c.example:5000", "docker.io"];
        let config = Config {
            hosts: hosts.map(|host| (host.to_owned(), own.clone())).into(),
            ..Config::default()
        };
        for authority in [
            "a.example:443",
            "b.example:443",
            "c.example:5000",
            "registry-1.docker.io:443",
        ] {
            assert!(tls(&config, authority).is_some(), "{authority}");
        }
        for authority in ["a.example:5000", "c.example:443", "auth.docker.io:443"] {
            assert!(tls(&config, authority).is_none(), "{authority}");
        }
    }

    #[test]
    fn a_host_whose_certificate_is_not_looked_at_may_be_anybody() {
        let own = HostTls {
            skip_verify: true,
            ..HostTls::default()
        };
        let config = Config {
            hosts: [("a.example".to_owned(), own)].into(),
            ..Config::default()
        };
        let clients = Clients::default();
        let check = |url: &str, expected: bool| {
            let verifies = clients.verifies(&config, &url.parse().unwrap());
            assert_eq!(verifies, expected, "{url}");
        };
        check("https://a.example", false);
        check("https://b.example", true);
        check("http://b.example", false);
        check("http://127.0.0.1:5000", true);
    }

    #[test]
    fn the_first_directory_of_a_host_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        let config = Config {
            certificate_folders: ["one", "two"].map(|name| folder.path().join(name)).into(),
            ..Config::default()
        };
        assert_eq!(tls(&config, "r:5000"), None);
        for file in ["ca.crt", "client.cert", "client.key", "other.txt"] {
            write(&format!("two/r:5000/{file}"));
        }
        let found = tls(&config, "r:5000").unwrap();
        let two = folder.path().join("two/r:5000");
        assert_eq!(found.ca, [two.join("ca.crt")]);
        assert_eq!(found.client.unwrap().key, two.join("client.key"));
        write("one/r:5000/x.cert");
        let error = own_tls(&config, "r:5000").unwrap_err().to_string();
        assert!(error.contains("has no key beside it"), "{error}");
    }
}
