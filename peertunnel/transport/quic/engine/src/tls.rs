//! libp2p's TLS 1.3 (libp2p specs, tls): both ends show one self-signed certificate.
//!
//! Here a peer proves that it has the key of its certificate. Whose certificate it is, is for the caller to find out
//! before it uses the connection.

use std::{error::Error as AnyError, sync::Arc};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified as Server, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer as Der, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer as Spki, UnixTime};
use rustls::server::danger::{ClientCertVerified as Client, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct as Signature, DistinguishedName, Error, SignatureScheme};

type Configs = (Arc<QuicClientConfig>, Arc<QuicServerConfig>);
type Valid<T = HandshakeSignatureValid> = Result<T, Error>;

/// Both roles' configuration: mutual authentication, no resumption, no early data. The key is in PKCS#8.
pub fn configs(certificate: Vec<u8>, key: Vec<u8>) -> Result<Configs, Box<dyn AnyError>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier(provider.signature_verification_algorithms));
    let (chain, key) = (vec![Der::from(certificate)], PrivateKeyDer::Pkcs8(key.into()));
    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    client.alpn_protocols = vec![b"libp2p".to_vec()];
    client.enable_sni = false;
    client.resumption = rustls::client::Resumption::disabled();
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"libp2p".to_vec()];
    server.send_tls13_tickets = 0;
    Ok((Arc::new(client.try_into()?), Arc::new(server.try_into()?)))
}

/// Accepts any certificate whose key has signed the handshake.
#[derive(Debug)]
struct Verifier(WebPkiSupportedAlgorithms);

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(&self, _: &[u8], _: &Der, _: &Signature) -> Valid {
            Err(Error::General("only TLS 1.3 is spoken".into()))
        }

        fn verify_tls13_signature(&self, message: &[u8], signer: &Der, signature: &Signature) -> Valid {
            let key = public_key(signer).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
            verify_tls13_signature_with_raw_key(message, &Spki::from(key), signature, &self.0)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_schemes()
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(&self, _: &Der, _: &[Der], _: &ServerName, _: &[u8], _: UnixTime) -> Valid<Server> {
        Ok(Server::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(&self, _: &Der, _: &[Der], _: UnixTime) -> Valid<Client> {
        Ok(Client::assertion())
    }

    signatures!();
}

/// The public key of a certificate (RFC 5280, section 4.1), as DER.
///
/// Found by hand: rustls' own parser refuses extensions that are critical and that it doesn't know, as libp2p's may be.
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let mut rest = element(element(certificate)?.0)?.0;
    let is_versioned = rest.first() == Some(&0xa0);
    for _ in 0..5 + usize::from(is_versioned) {
        rest = element(rest)?.2; // version, serial number, signature, issuer, validity, subject
    }
    Some(element(rest)?.1)
}

/// The first element of some DER: its content, all of it, and what follows.
fn element(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (head, length) = match usize::from(*data.get(1)?) {
        0x80 | 0x84.. => return None,
        long @ 0x81.. => {
            let digits = data.get(2..2 + (long & 127))?;
            (2 + digits.len(), digits.iter().fold(0, |value, digit| value << 8 | usize::from(*digit)))
        }
        short => (2, short),
    };
    Some((data.get(head..head + length)?, data.get(..head + length)?, &data[head + length..]))
}
