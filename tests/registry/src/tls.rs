//! A certificate authority for one test.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// An authority and the server certificate that it signed.
#[derive(Debug, Clone)]
pub struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    /// A certificate for a client and its key, as PEM.
    client: (String, String),
    /// The server's, as PEM.
    server: (String, String),
    chain: Vec<CertificateDer<'static>>,
    key: Arc<Vec<u8>>,
}

impl Authority {
    /// Makes an authority that nobody trusts yet.
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "kiln test authority");
        let authority_key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let names = [
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        let server = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let client_key = KeyPair::generate().unwrap();
        let client = CertificateParams::new(Vec::<String>::new())
            .unwrap()
            .signed_by(&client_key, &issuer)
            .unwrap();
        Self {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            client: (client.pem(), client_key.serialize_pem()),
            server: (server.pem(), key.serialize_pem()),
            chain: vec![server.der().clone()],
            key: Arc::new(key.serialize_der()),
        }
    }

    /// Makes a server whose certificate is its own authority, as `openssl req -x509` does. `names` are
    /// the hosts that it is for.
    pub fn of_itself(names: &[&str], expired: bool) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        if expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let pair = (own.pem(), key.serialize_pem());
        Self {
            pem: own.pem(),
            certificate: own.der().clone(),
            client: pair.clone(),
            server: pair,
            chain: vec![own.der().clone()],
            key: Arc::new(key.serialize_der()),
        }
    }

    /// Returns the authority's certificate, for SSL_CERT_FILE.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes the authority's certificate into a file.
    pub fn write_pem(&self, path: &Path) {
        std::fs::write(path, &self.pem).unwrap();
    }

    /// Writes a client's certificate that the authority signed, and its key.
    pub fn write_client(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, &self.client.0).unwrap();
        std::fs::write(key, &self.client.1).unwrap();
    }

    /// Writes the certificate of a server on this host that the authority signed, and its key.
    pub fn write_server(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, &self.server.0).unwrap();
        std::fs::write(key, &self.server.1).unwrap();
    }

    /// Makes the server's side; clients must have a certificate of `clients`, if given.
    pub(crate) fn acceptor(&self, clients: Option<&Authority>) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.key.as_ref().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.certificate.clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => builder.with_no_client_auth(),
        };
        let config = builder.with_single_cert(self.chain.clone(), key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
