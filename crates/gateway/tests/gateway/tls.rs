//! A homeserver that is reached by TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kitbag_client::{Client, Method, Request};
use kitbag_gateway::{SetupError, UpstreamSetupError};
use kitbag_testkit::scripted::Scripted;
use tokio::sync::watch;
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{gateway, serve, set_up};
use crate::wire::{DEADLINE, Wire};

pub(crate) fn certificate(name: &str) -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("certificates").join(name)
}

fn acceptor() -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(certificate("homeserver.pem")).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(certificate("homeserver.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Starts a server that answers one request a connection, and says what protocol was agreed on.
async fn tls_homeserver() -> Scripted {
    let acceptor = acceptor();
    Scripted::raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // A client that does not believe the certificate leaves.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let agreed = stream.get_ref().1.alpn_protocol().unwrap_or(b"none");
            let agreed = String::from_utf8(agreed.to_vec()).unwrap();
            let mut wire = Wire(stream);
            wire.head().await;
            let length = agreed.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            wire.send(head + &agreed).await;
            wire.head().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_homeserver_of_a_named_authority_is_reached_by_its_name_and_its_address() {
    let homeserver = tls_homeserver().await;
    let port = homeserver.address().port();
    for host in ["localhost", "127.0.0.1"] {
        let gateway = gateway(&format!("https://{host}:{port}"), |settings| {
            settings.upstream.ca_file = Some(certificate("ca.pem"));
        })
        .await;
        let client = Client::new(&gateway.url).unwrap();
        let request = Request::new(Method::GET, "/");
        let response = client.send(request).await.unwrap();
        assert_eq!(
            (response.status, &*response.body),
            (200, b"http/1.1".as_slice())
        );
    }
}

#[tokio::test]
async fn a_homeserver_that_comes_back_far_away_is_noticed_too() {
    // Longer than the first try may take.
    const GREETING: Duration = Duration::from_millis(1_200);
    let acceptor = acceptor();
    let connects = AtomicU64::new(0);
    let homeserver = Scripted::raw(move |stream| {
        let is_back = connects.fetch_add(1, Ordering::Relaxed) >= 5;
        let acceptor = acceptor.clone();
        async move {
            if !is_back {
                return;
            }
            time::sleep(GREETING).await;
            // Who waited no longer left.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            Wire(stream).head().await;
        }
    })
    .await;
    let url = format!("https://{}", homeserver.address());
    let gateway = set_up(&url, |settings| {
        settings.upstream.ca_file = Some(certificate("ca.pem"));
    });
    let gateway = gateway.unwrap();
    let (stop, stopping) = watch::channel(false);
    let running = serve(gateway.clone(), stop, stopping).await;
    let client = Client::new(&running.url).unwrap();
    for _ in 0..5 {
        let request = Request::new(Method::GET, "/");
        assert_eq!(client.send(request).await.unwrap().status, 502);
    }
    assert!(gateway.stats().breaker_is_open);
    let closed = async {
        while gateway.stats().breaker_is_open {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(DEADLINE, closed).await.unwrap();
}

#[tokio::test]
async fn a_homeserver_of_an_unknown_authority_is_not_talked_to() {
    let homeserver = tls_homeserver().await;
    let url = format!("https://localhost:{}", homeserver.address().port());
    let gateway = gateway(&url, |settings| {
        // This one signed nothing.
        settings.upstream.ca_file = Some(certificate("homeserver.pem"));
    })
    .await;
    let client = Client::new(&gateway.url).unwrap();
    let response = client.send(Request::new(Method::GET, "/")).await.unwrap();
    assert_eq!(response.status, 502);
}

#[tokio::test]
async fn a_homeserver_by_a_name_that_is_not_in_its_certificate_is_not_talked_to() {
    let homeserver = tls_homeserver().await;
    let port = homeserver.address().port();
    // The same address, in a form that is a name to everybody but the system.
    let url = format!("127.0x1:{port}");
    assert!(tokio::net::TcpStream::connect(&url).await.is_ok());
    let gateway = gateway(&format!("https://{url}"), |settings| {
        settings.upstream.ca_file = Some(certificate("ca.pem"));
    })
    .await;
    let client = Client::new(&gateway.url).unwrap();
    let response = client.send(Request::new(Method::GET, "/")).await.unwrap();
    assert_eq!(response.status, 502);
}

#[tokio::test]
async fn certificates_that_cannot_be_read_stop_the_start() {
    for name in ["nothing.pem", "homeserver.key"] {
        let failed = set_up("https://localhost", |settings| {
            settings.upstream.ca_file = Some(certificate(name));
        });
        let Err(SetupError::Upstream(UpstreamSetupError::Certificates(text))) = failed.map(drop)
        else {
            unreachable!("{name} was taken")
        };
        assert!(text.contains("upstream.ca_file"), "{text}");
        assert!(text.contains(name), "{text}");
    }
}
