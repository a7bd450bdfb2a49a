//! Encrypted connections: whom it trusts.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::answers::hello;
use crate::{Ran, command, finish, path};

/// A server with a certificate for `localhost`; gives its port and its CA.
fn server() -> (u16, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // It ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // Who does not trust us, ends the handshake.
            if stream.read(&mut [0; 65_536]).is_ok() {
                let _ = stream.write_all(&hello());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (port, ca.pem())
}

fn run(port: u16, ca: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(path(&folder, "ca.pem"), ca).unwrap();
    let url = format!("https://localhost:{port}");
    let mut command = command(folder.path(), &["--vendor", "xai", "--model", "m", "--base-url", &url]);
    command.env("SSL_CERT_FILE", path(&folder, "ca.pem"));
    finish(command, folder)
}

#[test]
fn a_ca_of_ones_own_is_trusted_by_ssl_cert_file_and_nobody_else_is() {
    let (port, ca) = server();
    let ran = run(port, &ca);
    assert_eq!((ran.code, ran.text().as_str()), (Some(0), "Hello"), "{}", ran.stdout);
    let (_, other) = server();
    let ran = run(port, &other);
    assert_eq!((ran.code, ran.reason(), ran.all("retry").len()), (Some(1), "network", 0), "{}", ran.stdout);
    assert!(ran.error().contains("certificate") && ran.error().contains("SSL_CERT_FILE"), "{}", ran.error());
}
