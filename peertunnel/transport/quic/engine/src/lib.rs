//! QUIC for libp2p, sans I/O: quinn-proto and rustls behind one Python object per UDP socket.
//!
//! Datagrams, timers and buffers go in and out; sockets and clock are the caller's. So a whole network can be
//! simulated, and the same calls carry the data path of a running node.

mod core;
mod tls;

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pyo3::types::{PyBytes, PyTuple};
use pyo3::{buffer::PyBuffer, exceptions::PyValueError, prelude::*};
use quinn_proto as quinn;
use quinn_proto::{Dir, StreamId, VarInt, WriteError, congestion};
use ring::{hkdf, hmac};
use rustls::pki_types::CertificateDer;

use crate::core::{Core, Happened};

type Turn<'py> = (Vec<Happened>, Option<Bound<'py, PyTuple>>, Option<f64>);

/// One UDP socket's QUIC; `_engine.pyi` says what its calls do.
#[pyclass]
struct Endpoint {
    core: Core,
    start: Instant, // the caller's zero
}

#[pymethods]
impl Endpoint {
    #[new]
    #[rustfmt::skip]
    #[allow(clippy::too_many_arguments)]
    fn new(certificate: Vec<u8>, key: Vec<u8>, seed: [u8; 32], reset_key: [u8; 32], server: bool, streams: u32,
           windows: (u32, u32, u32), patience: (f64, f64), datagrams: [u16; 2], congestion: [String; 2]) -> PyResult<Self> {
        let (client, crypto) = tls::configs(certificate, key).map_err(invalid)?;
        let (client, crypto) = (Arc::new(client), Arc::new(crypto));
        let transport = |at: usize| transport(streams, windows, patience, datagrams[at], &congestion[at]);
        let transports = [0, 1].map(|at| Arc::new(transport(at)));
        let clients = transports.clone().map(|transport| {
            let mut config = quinn::ClientConfig::new(client.clone());
            config.transport_config(transport).token_store(Arc::new(quinn::NoneTokenStore));
            config
        });
        let token_key = Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, b"retry").extract(&reset_key));
        let servers = transports.map(|transport| {
            let mut config = quinn::ServerConfig::new(crypto.clone(), token_key.clone());
            config.transport_config(transport);
            Arc::new(config)
        });
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &reset_key);
        let known = u64::from_be_bytes(std::array::from_fn(|at| hmac::sign(&reset_key, b"ids").as_ref()[at]));
        let mut config = quinn::EndpointConfig::new(Arc::new(reset_key));
        config.cid_generator(move || Box::new(quinn::HashedConnectionIdGenerator::from_key(known)));
        config.rng_seed(Some(seed)).max_udp_payload_size(datagrams[0].max(datagrams[1])).map_err(invalid)?;
        let endpoint = quinn::Endpoint::new(Arc::new(config), server.then(|| servers[0].clone()), true, None);
        Ok(Self { core: Core::new(endpoint, clients, servers), start: Instant::now() })
    }

    fn connect(&mut self, to: &Bound<'_, PyTuple>, now: f64) -> PyResult<u64> {
        self.core.connect(socket_address(to)?, self.at(now)).map_err(invalid)
    }

    fn stop_accepting(&mut self) {
        self.core.endpoint.set_server_config(None);
    }

    #[rustfmt::skip]
    fn receive(&mut self, py: Python<'_>, data: PyBuffer<u8>, stride: usize, source: &Bound<'_, PyTuple>,
               local: Option<&str>, now: f64) -> PyResult<()> {
        let (from, local, now) = (socket_address(source)?, local.map(ip_address).transpose()?, self.at(now));
        self.core.receive(Bytes::from(data.to_vec(py)?).into(), stride, from, local, now);
        Ok(())
    }

    fn transmit<'py>(&mut self, py: Python<'py>, segments: usize, now: f64) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(transmit) = self.core.transmit(segments, self.at(now)) else { return Ok(None) };
        let to = match transmit.destination {
            SocketAddr::V4(to) => (to.ip().to_string(), to.port()).into_pyobject(py)?,
            SocketAddr::V6(to) => (to.ip().to_string(), to.port(), to.flowinfo(), to.scope_id()).into_pyobject(py)?,
        };
        let local = transmit.src_ip.map(|ip| ip.to_string());
        let data = PyBytes::new(py, &self.core.datagrams[..transmit.size]);
        (data, transmit.segment_size.unwrap_or(0), to, local).into_pyobject(py).map(Some)
    }

    fn timeout(&self) -> Option<f64> {
        self.core.timers.first().map(|(when, _)| when.saturating_duration_since(self.start).as_secs_f64())
    }

    fn handle_timeouts(&mut self, now: f64) {
        self.core.handle_timeouts(self.at(now));
    }

    fn turn<'py>(&mut self, py: Python<'py>, segments: usize, now: f64) -> PyResult<Turn<'py>> {
        let mut events = std::mem::take(&mut self.core.events);
        let batch = if events.is_empty() && segments > 0 { self.transmit(py, segments, now)? } else { None };
        events.append(&mut self.core.events); // what became of it
        events.sort_by_key(|(kind, ..)| *kind != "stopped");
        Ok((events, batch, self.timeout()))
    }

    fn open(&mut self, connection: u64) -> Option<u64> {
        self.core.act(connection, |connection| connection.streams().open(Dir::Bi)).flatten().map(Into::into)
    }

    fn write(&mut self, py: Python<'_>, connection: u64, stream: u64, data: PyBuffer<u8>) -> PyResult<Option<usize>> {
        let (stream, data) = (stream_id(stream)?, Bytes::from(data.to_vec(py)?));
        let written = self.core.act(connection, |connection| connection.send_stream(stream).write_chunks(&mut [data]));
        let blocked = matches!(written, Some(Err(WriteError::Blocked))).then_some(0);
        Ok(written.and_then(Result::ok).map(|written| written.bytes).or(blocked))
    }

    #[rustfmt::skip]
    fn read_into(&mut self, py: Python<'_>, connection: u64, stream: u64, buffer: PyBuffer<u8>)
                 -> PyResult<Option<(usize, Option<bool>)>> {
        let (stream, out) = (stream_id(stream)?, writable(py, &buffer)?);
        let read = self.core.act(connection, |connection| {
            let mut stream = connection.recv_stream(stream);
            let (mut chunks, mut size, mut end) = (stream.read(true).ok()?, 0, None);
            while size < out.len() {
                match chunks.next(out.len() - size) {
                    Ok(Some(chunk)) => {
                        out[size..][..chunk.bytes.len()].copy_from_slice(&chunk.bytes);
                        size += chunk.bytes.len();
                        continue;
                    }
                    Ok(None) => end = Some(true),
                    Err(quinn::ReadError::Blocked) => end = Some(false),
                    Err(_) if size == 0 => return None,
                    Err(_) => {} // the next call tells
                }
                break;
            }
            let _ = chunks.finalize(); // whatever it says, we look for what is to be sent
            Some((size, end))
        });
        Ok(read.flatten())
    }

    fn is_reset(&mut self, connection: u64, stream: u64) -> PyResult<bool> {
        let stream = stream_id(stream)?;
        let reset = self.core.with(connection, |connection| connection.recv_stream(stream).received_reset());
        Ok(!matches!(reset, Some(Ok(None))))
    }

    fn finish(&mut self, connection: u64, stream: u64) -> PyResult<bool> {
        let stream = stream_id(stream)?;
        let finish = |connection: &mut quinn::Connection| connection.send_stream(stream).finish();
        Ok(matches!(self.core.act(connection, finish), Some(Ok(()))))
    }

    fn reset(&mut self, connection: u64, stream: u64, code: u32) -> PyResult<()> {
        let (stream, code) = (stream_id(stream)?, VarInt::from_u32(code));
        // Either fails where its half has ended before.
        self.core.act(connection, |connection| {
            let _ = connection.send_stream(stream).reset(code);
            let _ = connection.recv_stream(stream).stop(code);
        });
        Ok(())
    }

    fn close(&mut self, connection: u64, code: u32, reason: &[u8], now: f64) {
        let (now, reason) = (self.at(now), Bytes::copy_from_slice(reason));
        self.core.act(connection, |connection| connection.close(now, code.into(), reason));
    }

    fn ping(&mut self, connection: u64) {
        self.core.act(connection, quinn::Connection::ping);
    }

    fn rebound(&mut self, connection: u64) {
        self.core.act(connection, quinn::Connection::local_address_changed);
    }

    fn peer_certificate<'py>(&mut self, py: Python<'py>, connection: u64) -> Option<Bound<'py, PyBytes>> {
        let identity = self.core.with(connection, |connection| connection.crypto_session().peer_identity())??;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        Some(PyBytes::new(py, chain.first()?))
    }

    fn path(&mut self, connection: u64) -> Option<(String, u16, f64, u64)> {
        self.core.with(connection, |connection| {
            let (remote, acks) = (connection.remote_address(), connection.stats().frame_rx.acks);
            (remote.ip().to_string(), remote.port(), connection.rtt().as_secs_f64(), acks)
        })
    }
}

impl Endpoint {
    /// The caller's time as quinn's; what is no time counts as the beginning.
    fn at(&self, now: f64) -> Instant {
        Duration::try_from_secs_f64(now).ok().and_then(|since| self.start.checked_add(since)).unwrap_or(self.start)
    }
}

#[rustfmt::skip]
fn transport(streams: u32, (stream, connection, send): (u32, u32, u32), (idle, keepalive): (f64, f64), largest: u16,
             congestion: &str) -> quinn::TransportConfig {
    let mut discovery = quinn::MtuDiscoveryConfig::default();
    discovery.upper_bound(largest);
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(stream.into())
        .receive_window(connection.into())
        .send_window(send.into())
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0u8.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Duration::from_secs_f64(idle).try_into().ok())
        .keep_alive_interval(Some(Duration::from_secs_f64(keepalive)))
        .mtu_discovery_config(Some(discovery));
    if congestion == "bbr" {
        transport.congestion_controller_factory(Arc::new(congestion::BbrConfig::default()));
    }
    transport
}

/// The memory of a Python buffer, to be written to before Python code runs again.
#[allow(unsafe_code)]
fn writable<'a>(_: Python<'a>, buffer: &'a PyBuffer<u8>) -> PyResult<&'a mut [u8]> {
    if buffer.readonly() || !buffer.is_c_contiguous() {
        return Err(invalid("a writable, contiguous buffer is needed"));
    }
    // SAFETY: the buffer protocol keeps these bytes where they are while `buffer` lives, nobody else touches them while
    // we have the interpreter, and they are plain bytes.
    Ok(unsafe { std::slice::from_raw_parts_mut(buffer.buf_ptr().cast(), buffer.len_bytes()) })
}

fn invalid(error: impl ToString) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn stream_id(number: u64) -> PyResult<StreamId> {
    VarInt::from_u64(number).map(StreamId::from).map_err(invalid)
}

/// Python's (host, port) or (host, port, flow, scope); the zone in a host is left out, the scope says the same.
fn socket_address(address: &Bound<'_, PyTuple>) -> PyResult<SocketAddr> {
    let ip = ip_address(address.get_item(0)?.extract::<&str>()?)?;
    let port = address.get_item(1)?.extract()?;
    Ok(match ip {
        IpAddr::V6(ip) if address.len() == 4 => {
            SocketAddrV6::new(ip, port, address.get_item(2)?.extract()?, address.get_item(3)?.extract()?).into()
        }
        ip => SocketAddr::new(ip, port),
    })
}

fn ip_address(text: &str) -> PyResult<IpAddr> {
    let ip = text.split_once('%').map_or(text, |(ip, _)| ip);
    ip.parse().map_err(|_| invalid(format!("{text} is no IP address")))
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Endpoint>()
}
