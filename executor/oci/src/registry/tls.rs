//! TLS: whom to trust, and telling a bad certificate from no TLS at all.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::config::Config;
use super::error::Error;

/// Where distributions keep the bundle of the authorities that they trust; the first one there counts.
///
/// rustls-native-certs' own search lets SSL_CERT_FILE replace the system's bundle, where kiln adds
/// to it.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/cert.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
];

/// Reads the trusted authorities and makes the client's side of TLS, with ring.
pub(super) fn client_config(config: &Config) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    if config.system_roots
        && let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.exists())
    {
        // A bundle holds what its distribution put there; what is not a certificate is left out.
        let found = rustls_native_certs::load_certs_from_paths(Some(bundle), None);
        roots.add_parsable_certificates(found.certs);
    }
    for path in &config.extra_roots {
        add_extra(&mut roots, path)?;
    }
    let failed = |source| Error::Tls {
        what: "no protocol version is usable".to_owned(),
        source: Some(source),
    };
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Adds a file that somebody named, which therefore must be good.
fn add_extra(roots: &mut RootCertStore, path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let found = rustls_native_certs::load_certs_from_paths(Some(path), None);
    if let Some(error) = found.errors.first() {
        let what = format!("cannot read the certificates in `{shown}` (SSL_CERT_FILE): {error}");
        return Err(Error::Tls { what, source: None });
    }
    if found.certs.is_empty() {
        let what = format!("`{shown}` (SSL_CERT_FILE) holds no PEM certificate");
        return Err(Error::Tls { what, source: None });
    }
    for certificate in found.certs {
        roots.add(certificate).map_err(|source| {
            let what = format!("`{shown}` (SSL_CERT_FILE) holds a certificate that is not usable");
            Error::Tls {
                what,
                source: Some(source),
            }
        })?;
    }
    Ok(())
}

/// What kept a TLS connection from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// The server's certificate is not trusted.
    Certificate,
    /// The server does not speak TLS.
    NotTls,
}

/// Finds out whether an error came of a TLS handshake, and how.
pub(super) fn diagnose(error: &(dyn StdError + 'static)) -> Option<Handshake> {
    let mut next = Some(error);
    // Chains are short; the bound is for ones that are not.
    for _ in 0..32 {
        let error = next?;
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return match tls {
                rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                    Some(Handshake::Certificate)
                }
                rustls::Error::InvalidMessage(_) => Some(Handshake::NotTls),
                _ => None,
            };
        }
        // An io::Error's source is the source of what it wraps, so the wrapped one is asked for.
        next = match error.downcast_ref::<std::io::Error>() {
            Some(io) if is_handshake_end(io) => return Some(Handshake::NotTls),
            Some(io) => io
                .get_ref()
                .map(|inner| inner as &(dyn StdError + 'static))
                .or(error.source()),
            None => error.source(),
        };
    }
    None
}

/// tokio-rustls's words for a server that hung up in the middle of the handshake.
fn is_handshake_end(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::UnexpectedEof
        && error.to_string().contains("tls handshake eof")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_understood_through_its_wrapping() {
        use std::io;
        let wrap = |error: rustls::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let corrupt = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        assert_eq!(
            diagnose(&io::Error::other(wrap(corrupt))),
            Some(Handshake::NotTls)
        );
        assert_eq!(diagnose(&wrap(expired)), Some(Handshake::Certificate));
        assert_eq!(diagnose(&wrap(rustls::Error::DecryptError)), None);
        assert_eq!(diagnose(&io::Error::other("refused")), None);
    }

    #[test]
    fn a_named_file_must_hold_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let config = |path: &Path| Config {
            extra_roots: vec![path.to_owned()],
            ..Config::default()
        };
        let message = |path: &Path| client_config(&config(path)).unwrap_err().to_string();
        assert!(
            message(&path).contains("cannot read the certificates"),
            "{}",
            message(&path)
        );
        std::fs::write(&path, "no certificate\n").unwrap();
        assert!(
            message(&path).contains("holds no PEM certificate"),
            "{}",
            message(&path)
        );
    }
}
