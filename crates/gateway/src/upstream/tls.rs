//! TLS to the homeserver, HTTP/1.1 inside.

use std::io;
use std::sync::Arc;

use axum::http::uri::Authority;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::UpstreamSetupError;
use super::target::host;
use crate::settings::UpstreamSettings;

/// What is told of protocols in the handshake [RFC 7301].
const HTTP_1_1: &[u8] = b"http/1.1";

/// Whom to believe that it is the homeserver.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the certificates of the system and those that the operator named.
    pub(super) fn new(
        authority: &Authority,
        settings: &UpstreamSettings,
    ) -> Result<Self, UpstreamSetupError> {
        let certificates = UpstreamSetupError::Certificates;
        let name = ServerName::try_from(host(authority).to_owned());
        let name = name.map_err(|error| certificates(format!("`upstream.url`: {error}")))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has all that the versions need")
            .with_root_certificates(roots(settings)?);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self {
            connector: Arc::new(config).into(),
            name,
        })
    }

    pub(super) async fn greet(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

fn roots(settings: &UpstreamSettings) -> Result<RootCertStore, UpstreamSetupError> {
    let certificates = UpstreamSetupError::Certificates;
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    // One that cannot be read is no reason to have none.
    roots.add_parsable_certificates(system.certs);
    if let Some(path) = &settings.ca_file {
        let unreadable = |error| {
            let path = path.display();
            certificates(format!("`upstream.ca_file` {path}: {error}"))
        };
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
            let added = roots.add(certificate.map_err(unreadable)?);
            added.map_err(|error| certificates(format!("`upstream.ca_file`: {error}")))?;
        }
        if roots.len() == before {
            let path = path.display();
            let nothing = format!("`upstream.ca_file` {path}: no certificate in it");
            return Err(certificates(nothing));
        }
    }
    if roots.is_empty() {
        let nothing = "the system has no certificates: name a file in `upstream.ca_file`";
        return Err(certificates(nothing.to_owned()));
    }
    Ok(roots)
}
