//! TLS: whom to trust, and telling a bad certificate from no TLS at all.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, ClientConfig, ConfigBuilder, DigitallySignedStruct, InconsistentKeys,
    RootCertStore, SignatureScheme, WantsVerifier,
};

use super::config::{ClientCertificate, Config, HostTls};
use super::error::Error;
use super::verifier::{Verifier, is_because};

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

/// Makes the client's side of TLS with somebody who is no registry, whose own authorities go for it alone.
pub(crate) fn client_tls(host: &HostTls) -> Result<ClientConfig, Error> {
    let config = Config {
        system_roots: host.ca.is_empty(),
        ..Config::default()
    };
    client_config(&config, host)
}

/// Reads the trusted authorities and makes the client's side of TLS, with ring.
pub(super) fn client_config(config: &Config, host: &HostTls) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |source| Error::Tls {
        what: "no protocol version is usable".to_owned(),
        source: Some(source),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match host.skip_verify {
        true => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        false => with_trusted(builder, trusted(config, host)?)?,
    };
    let Some(client) = &host.client else {
        return Ok(builder.with_no_client_auth());
    };
    let provider = Arc::clone(builder.crypto_provider());
    let shown = certified(client, &provider)?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown))))
}

/// Reads what is shown to a host, and checks that the key is the certificate's where that can be told.
fn certified(client: &ClientCertificate, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let refused = |source| {
        let (cert, key) = (client.cert.display(), client.key.display());
        Error::Tls {
            what: format!("the certificate in `{cert}` and the key in `{key}` are not usable"),
            source: Some(source),
        }
    };
    let (chain, key) = read_client(client)?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(refused)?;
    let shown = CertifiedKey::new(chain, key);
    match shown.keys_match() {
        // X.509 v1 is what `openssl x509 -req` makes without extensions. Whether it is good is the host's to say;
        // the key stands in it as it stands by itself.
        Err(error) if is_because(&error, &webpki::Error::UnsupportedCertVersion) => {
            let public = shown.key.public_key();
            let has = |cert: &CertificateDer<'_>, public: &[u8]| {
                cert.windows(public.len()).any(|part| part == public)
            };
            match (public, shown.cert.first()) {
                (Some(public), Some(cert)) if !has(cert, &public) => {
                    Err(refused(InconsistentKeys::KeyMismatch.into()))
                }
                _ => Ok(shown),
            }
        }
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(shown),
        Err(error) => Err(refused(error)),
    }
}

type Believing<S> = ConfigBuilder<ClientConfig, S>;

fn with_trusted(
    builder: Believing<WantsVerifier>,
    trusted: Trusted,
) -> Result<Believing<WantsClientCert>, Error> {
    let roots = Arc::new(trusted.roots);
    if roots.is_empty() {
        return Ok(builder.with_root_certificates(roots));
    }
    let provider = Arc::clone(builder.crypto_provider());
    let usual = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    let usual = usual.map_err(|error| Error::Tls {
        what: format!("the trusted certificates are not usable: {error}"),
        source: None,
    })?;
    let verifier = Verifier::new(usual, trusted.certificates);
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// Whom a host is believed by.
struct Trusted {
    roots: RootCertStore,
    /// The certificates that the roots are of.
    certificates: Vec<CertificateDer<'static>>,
}

fn trusted(config: &Config, host: &HostTls) -> Result<Trusted, Error> {
    let mut trusted = Trusted {
        roots: RootCertStore::empty(),
        certificates: Vec::new(),
    };
    if config.system_roots
        && let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.exists())
    {
        // A bundle holds what its distribution put there; what is not a certificate is left out.
        let found = rustls_native_certs::load_certs_from_paths(Some(bundle), None);
        trusted.certificates.extend(found.certs.iter().cloned());
        trusted.roots.add_parsable_certificates(found.certs);
    }
    for path in config.extra_roots.iter().chain(&host.ca) {
        add_extra(&mut trusted, path)?;
    }
    Ok(trusted)
}

type Client = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_client(client: &ClientCertificate) -> Result<Client, Error> {
    let refused = |what: String| Error::Tls { what, source: None };
    let shown = client.cert.display();
    let found = rustls_native_certs::load_certs_from_paths(Some(&client.cert), None);
    if let Some(error) = found.errors.first() {
        return Err(refused(format!(
            "cannot read the client certificate in `{shown}`: {error}"
        )));
    }
    if found.certs.is_empty() {
        return Err(refused(format!("`{shown}` holds no PEM certificate")));
    }
    let shown = client.key.display();
    let bytes = std::fs::read(&client.key)
        .map_err(|error| refused(format!("cannot read the private key in `{shown}`: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let text = String::from_utf8_lossy(&bytes);
        refused(match text.contains("ENCRYPTED") {
            true => format!("the private key in `{shown}` is encrypted; decrypt it first"),
            false => format!("`{shown}` holds no PEM private key"),
        })
    })?;
    Ok((found.certs, key))
}

/// Believes every certificate, since the user said so; what is signed is checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Adds a file that somebody named, which therefore must be good.
fn add_extra(trusted: &mut Trusted, path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let found = rustls_native_certs::load_certs_from_paths(Some(path), None);
    if let Some(error) = found.errors.first() {
        let what = format!("cannot read the certificates in `{shown}`: {error}");
        return Err(Error::Tls { what, source: None });
    }
    if found.certs.is_empty() {
        let what = format!("`{shown}` holds no PEM certificate");
        return Err(Error::Tls { what, source: None });
    }
    for certificate in found.certs {
        trusted.certificates.push(certificate.clone());
        trusted.roots.add(certificate).map_err(|source| {
            let what = format!("`{shown}` holds a certificate that is not usable");
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
    /// The server does not trust the client's certificate, or misses one.
    Client,
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
                rustls::Error::AlertReceived(
                    AlertDescription::CertificateRequired
                    | AlertDescription::BadCertificate
                    | AlertDescription::UnsupportedCertificate
                    | AlertDescription::CertificateRevoked
                    | AlertDescription::CertificateExpired
                    | AlertDescription::CertificateUnknown
                    | AlertDescription::UnknownCA
                    | AlertDescription::AccessDenied
                    | AlertDescription::DecryptError,
                ) => Some(Handshake::Client),
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
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(diagnose(&wrap(alert)), Some(Handshake::Client));
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
        let message = |path: &Path| {
            client_config(&config(path), &HostTls::default())
                .unwrap_err()
                .to_string()
        };
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

    #[test]
    fn a_client_certificate_must_have_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let authority = kiln_test_registry::Authority::new();
        let (cert, key) = (folder.path().join("c"), folder.path().join("k"));
        let host = HostTls {
            client: Some(ClientCertificate {
                cert: cert.clone(),
                key: key.clone(),
            }),
            ..HostTls::default()
        };
        let check = |expected: &str| {
            let error = client_config(&Config::default(), &host).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check("cannot read the client certificate in");
        std::fs::write(&cert, "").unwrap();
        check("holds no PEM certificate");
        authority.write_client(&cert, &key);
        client_config(&Config::default(), &host).unwrap();
        std::fs::write(&key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n").unwrap();
        check("is encrypted; decrypt it first");
        std::fs::write(&key, "none").unwrap();
        check("holds no PEM private key");
        std::fs::remove_file(&key).unwrap();
        check("cannot read the private key in");
        kiln_test_registry::Authority::new().write_client(&folder.path().join("o"), &key);
        check("are not usable");
    }
}
