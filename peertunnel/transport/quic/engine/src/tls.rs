//! libp2p's TLS 1.3 (libp2p specs, tls): both ends show one self-signed certificate.
//!
//! Here a peer proves that it has the key of its certificate. Whose certificate it is, is for the caller to find out
//! before it uses the connection.

use std::{error::Error as AnyError, sync::Arc};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct as Signature, DistinguishedName, Error, SignatureScheme};

const ALPN: &[u8] = b"libp2p";
type Valid = Result<HandshakeSignatureValid, Error>;

/// Both roles' configuration: mutual authentication, no resumption, no early data. The key is in PKCS#8.
pub fn configs(certificate: Vec<u8>, key: Vec<u8>) -> Result<(QuicClientConfig, QuicServerConfig), Box<dyn AnyError>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier(provider.clone()));
    let (chain, key) = (vec![CertificateDer::from(certificate)], PrivateKeyDer::Pkcs8(key.into()));
    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.enable_sni = false;
    client.resumption = rustls::client::Resumption::disabled();
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;
    Ok((client.try_into()?, server.try_into()?))
}

/// Accepts any single certificate whose key has signed the handshake.
#[derive(Debug)]
struct Verifier(Arc<CryptoProvider>);

fn alone(others: &[CertificateDer<'_>]) -> Result<(), Error> {
    if others.is_empty() { Ok(()) } else { Err(Error::General("exactly one certificate is wanted".into())) }
}

macro_rules! signatures {
    () => {
        fn verify_tls12_signature(&self, _: &[u8], _: &CertificateDer<'_>, _: &Signature) -> Valid {
            Err(Error::General("only TLS 1.3 is spoken".into()))
        }

        fn verify_tls13_signature(&self, message: &[u8], signer: &CertificateDer<'_>, signature: &Signature) -> Valid {
            let key = public_key(signer).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
            let algorithms = &self.0.signature_verification_algorithms;
            verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key), signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    };
}

type Der<'a> = CertificateDer<'a>;

impl ServerCertVerifier for Verifier {
    #[rustfmt::skip]
    fn verify_server_cert(&self, _: &Der<'_>, others: &[Der<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime)
        -> Result<ServerCertVerified, Error> {
        alone(others).map(|()| ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(&self, _: &Der<'_>, others: &[Der<'_>], _: UnixTime) -> Result<ClientCertVerified, Error> {
        alone(others).map(|()| ClientCertVerified::assertion())
    }

    signatures!();
}

/// The public key of a certificate (RFC 5280, section 4.1), as DER.
///
/// Found by hand: rustls' own parser refuses extensions that are critical and that it doesn't know, as libp2p's may be.
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (content, ..) = element(certificate)?;
    let (mut rest, ..) = element(content)?;
    let is_versioned = rest.first() == Some(&0xa0);
    for _ in 0..5 + usize::from(is_versioned) {
        (_, _, rest) = element(rest)?; // version, serial number, signature, issuer, validity, subject
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
