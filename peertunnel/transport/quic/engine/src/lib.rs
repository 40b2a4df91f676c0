//! QUIC for libp2p, sans I/O: quinn-proto and rustls behind one Python object per UDP socket.
//!
//! Datagrams, timers and buffers go in and out; sockets, clock and chance are the caller's, but for TLS' keys and nonces and
//! the phase that BBR begins with. So whole networks can be simulated with the calls that carry a running node's data.

mod core;
mod given;
mod tls;

use std::{net::IpAddr, net::SocketAddr, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration, time::Instant};

use bytes::Bytes;
use pyo3::{buffer::PyBuffer, exceptions::PyValueError, prelude::*, types::PyBytes, types::PyTuple};
use quinn_proto::{self as quinn, Connection, ConnectionIdGenerator, Dir, ReadError, StreamId, VarInt, WriteError};
use ring::{hkdf, hmac};
use rustls::pki_types::CertificateDer;

use crate::{core::Core, core::Happened, given::Clock, given::Ids};

type Read = (usize, Option<bool>);
type Turn<'py> = (Vec<Happened>, Option<Bound<'py, PyTuple>>, Option<f64>);

/// One UDP socket's QUIC; `_engine.pyi` says what its calls do.
#[pyclass]
struct Endpoint {
    core: Core,
    first_ids: Ids, // of peers, until they give their own
    start: Instant, // the caller's zero
    clock: Arc<Clock>,
}

#[pymethods]
impl Endpoint {
    #[new]
    #[rustfmt::skip]
    #[allow(clippy::too_many_arguments)]
    fn new(certificate: Vec<u8>, key: Vec<u8>, seed: [u8; 32], reset_key: [u8; 32], server: bool, streams: u32,
           windows: [(u32, u32, u32); 2], patience: (f64, f64), datagrams: [u16; 2], congestion: [String; 2]) -> PyResult<Self> {
        let (client, crypto) = tls::configs(certificate, key).map_err(invalid)?;
        let [key, reset_key] = [&seed, &reset_key].map(|key| hmac::Key::new(hmac::HMAC_SHA256, key));
        let token_key = Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, b"retry").extract(&seed));
        let clock = Arc::new(Clock::default());
        let configs = [0, 1].map(|at| {
            let mut transport = quinn::TransportConfig::default();
            let (stream, connection, send) = windows[at];
            transport.stream_receive_window(stream.into()).receive_window(connection.into()).send_window(send.into());
            transport.max_concurrent_bidi_streams(streams.into()).max_concurrent_uni_streams(0u8.into());
            transport.max_idle_timeout(Duration::from_secs_f64(patience.0).try_into().ok());
            transport.keep_alive_interval(Some(Duration::from_secs_f64(patience.1))).datagram_receive_buffer_size(None);
            transport.mtu_discovery_config(Some(quinn::MtuDiscoveryConfig::default().upper_bound(datagrams[at]).clone()));
            let bbr = (congestion[at] == "bbr").then(quinn::congestion::BbrConfig::default);
            bbr.map(|bbr| transport.congestion_controller_factory(Arc::new(bbr)));
            let transport = Arc::new(transport);
            let mut outgoing = quinn::ClientConfig::new(client.clone());
            outgoing.transport_config(transport.clone()).token_store(Arc::new(quinn::NoneTokenStore));
            let mut incoming = quinn::ServerConfig::new(crypto.clone(), token_key.clone());
            incoming.transport_config(transport).time_source(clock.clone());
            (outgoing, Arc::new(incoming))
        });
        let mut config = quinn::EndpointConfig::new(Arc::new(reset_key.clone()));
        let ids = Ids { seed: key, marking: reset_key, drawn: 0 };
        let first_ids = Ids { drawn: 1 << 63, ..ids.clone() };
        config.cid_generator(move || Box::new(ids.clone())).rng_seed(Some(seed));
        config.max_udp_payload_size(datagrams[0].max(datagrams[1])).map_err(invalid)?;
        let endpoint = quinn::Endpoint::new(Arc::new(config), server.then(|| configs[0].1.clone()), true, None);
        Ok(Self { core: Core::new(endpoint, configs), first_ids, start: Instant::now(), clock })
    }

    fn connect(&mut self, to: &Bound<'_, PyTuple>, now: f64) -> PyResult<u64> {
        let (to, now, id) = (socket_address(to)?, self.at(now), self.first_ids.generate_cid());
        let mut config = self.core.configs[usize::from(to.ip().is_loopback())].0.clone();
        config.initial_dst_cid_provider(Arc::new(move || id));
        let connected = self.core.endpoint.connect(now, config, to, "libp2p");
        connected.map(|(handle, connection)| self.core.add(handle, connection)).map_err(invalid)
    }

    fn stop_accepting(&mut self) {
        self.core.endpoint.set_server_config(None);
    }

    #[rustfmt::skip]
    fn receive(&mut self, py: Python<'_>, data: PyBuffer<u8>, stride: usize, source: &Bound<'_, PyTuple>,
               local: Option<&str>, now: f64) -> PyResult<()> {
        let (from, local, now) = (socket_address(source)?, local.map(ip_address).transpose()?, self.at(now));
        self.core.receive(&data.to_vec(py)?, stride, from, local, now);
        Ok(())
    }

    fn transmit<'py>(&mut self, py: Python<'py>, segments: usize, now: f64) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(transmit) = self.core.transmit(segments, self.at(now)) else { return Ok(None) };
        let to = match transmit.destination {
            SocketAddr::V4(to) => (to.ip().to_string(), to.port()).into_pyobject(py)?,
            SocketAddr::V6(to) => (to.ip().to_string(), to.port(), to.flowinfo(), to.scope_id()).into_pyobject(py)?,
        };
        let data = PyBytes::new(py, &self.core.output[..transmit.size]);
        let local = transmit.src_ip.map(|ip| ip.to_string());
        (data, transmit.segment_size.unwrap_or(0), to, local).into_pyobject(py).map(Some)
    }

    fn timeout(&self) -> Option<f64> {
        self.core.timers.first().map(|(when, _)| when.saturating_duration_since(self.start).as_secs_f64())
    }

    fn handle_timeouts(&mut self, now: f64) {
        let now = self.at(now);
        while let Some((_, id)) = self.core.timers.first().copied().filter(|(when, _)| *when <= now) {
            self.core.act(id, |connection| connection.handle_timeout(now));
        }
    }

    fn turn<'py>(&mut self, py: Python<'py>, segments: usize, now: f64) -> PyResult<Turn<'py>> {
        let mut events = std::mem::take(&mut self.core.events);
        if events.is_empty() {
            // The caller knows of all ends, and has read what it wanted.
            std::mem::take(&mut self.core.over).into_iter().for_each(|id| self.core.forget(id));
        }
        let batch = if events.is_empty() && segments > 0 { self.transmit(py, segments, now)? } else { None };
        events.append(&mut self.core.events); // what became of it
        events.sort_by_key(|(kind, ..)| *kind != "stopped");
        Ok((events, batch, self.timeout()))
    }

    fn open(&mut self, connection: u64) -> Option<u64> {
        self.core.act(connection, |connection| connection.streams().open(Dir::Bi)).flatten().map(Into::into)
    }

    fn write(&mut self, py: Python<'_>, connection: u64, stream: u64, data: PyBuffer<u8>) -> PyResult<Option<usize>> {
        let mut data = [Bytes::from(data.to_vec(py)?)];
        let write = |connection: &mut Connection| connection.send_stream(stream_id(stream)).write_chunks(&mut data);
        let written = self.core.act(connection, write);
        let blocked = matches!(written, Some(Err(WriteError::Blocked))).then_some(0);
        Ok(written.and_then(Result::ok).map(|written| written.bytes).or(blocked))
    }

    fn read_into(&mut self, py: Python, connection: u64, stream: u64, buffer: PyBuffer<u8>) -> PyResult<Option<Read>> {
        let out = writable(py, &buffer)?;
        let read = |connection: &mut Connection| {
            let mut stream = connection.recv_stream(stream_id(stream));
            let (mut chunks, mut size, mut end) = (stream.read(true).ok()?, 0, None);
            while size < out.len() && end.is_none() {
                match chunks.next(out.len() - size) {
                    Ok(Some(chunk)) => {
                        out[size..][..chunk.bytes.len()].copy_from_slice(&chunk.bytes);
                        size += chunk.bytes.len();
                    }
                    Ok(None) => end = Some(true),
                    Err(ReadError::Blocked) => end = Some(false),
                    Err(_) if size == 0 => return None,
                    Err(_) => break, // the next call tells
                }
            }
            let _ = chunks.finalize(); // whatever it says, we look for what is to be sent
            Some((size, end))
        };
        Ok(self.core.act(connection, read).flatten())
    }

    fn is_reset(&mut self, connection: u64, stream: u64) -> bool {
        let received = |connection: &mut Connection| connection.recv_stream(stream_id(stream)).received_reset();
        !matches!(self.core.with(connection, received), Some(Ok(None)))
    }

    fn finish(&mut self, connection: u64, stream: u64) -> bool {
        self.core.act(connection, |connection| connection.send_stream(stream_id(stream)).finish().is_ok()) == Some(true)
    }

    fn reset(&mut self, connection: u64, stream: u64, sending: bool) {
        // Either fails where its half has ended before. The code, 0, means nothing to libp2p.
        self.core.act(connection, |connection| connection.recv_stream(stream_id(stream)).stop(0u8.into()));
        self.core.act(connection, |on| sending.then(|| on.send_stream(stream_id(stream)).reset(0u8.into())));
    }

    fn close(&mut self, connection: u64, code: u32, now: f64) {
        let now = self.at(now);
        self.core.act(connection, |connection| connection.close(now, code.into(), Bytes::new()));
    }

    fn ping(&mut self, connection: u64) {
        self.core.act(connection, Connection::ping);
    }

    fn limit(&mut self, connection: u64, size: u64) {
        self.core.act(connection, |connection| connection.set_send_window(size));
    }

    fn rebound(&mut self, connection: u64) {
        self.core.act(connection, Connection::local_address_changed);
    }

    fn peer_certificate<'py>(&mut self, py: Python<'py>, connection: u64) -> Option<Bound<'py, PyBytes>> {
        let identity = self.core.with(connection, |connection| connection.crypto_session().peer_identity())??;
        let [certificate] = identity.downcast_ref::<Vec<CertificateDer>>()?.as_slice() else { return None };
        Some(PyBytes::new(py, certificate))
    }

    fn path(&mut self, connection: u64) -> Option<(String, u16, f64, u64, u64, u64)> {
        self.core.with(connection, |connection| {
            let (remote, rtt, stats) = (connection.remote_address(), connection.rtt(), connection.stats());
            let sent = stats.udp_tx.bytes.saturating_sub(stats.path.lost_bytes);
            (remote.ip().to_string(), remote.port(), rtt.as_secs_f64(), stats.frame_rx.acks, sent, stats.udp_rx.bytes)
        })
    }
}

impl Endpoint {
    /// The caller's time as quinn's; what is no time counts as the beginning.
    fn at(&self, now: f64) -> Instant {
        let since = Duration::try_from_secs_f64(now).unwrap_or_default();
        self.clock.0.store(since.as_secs(), Relaxed);
        self.start.checked_add(since).unwrap_or(self.start)
    }
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

fn stream_id(number: u64) -> StreamId {
    VarInt::from_u64(number).unwrap_or(VarInt::MAX).into()
}

/// Python's (host, port) or (host, port, flow, scope); the zone in a host is left out, the scope says the same.
fn socket_address(address: &Bound<'_, PyTuple>) -> PyResult<SocketAddr> {
    let mut found = SocketAddr::new(ip_address(address.get_item(0)?.extract()?)?, address.get_item(1)?.extract()?);
    if let (SocketAddr::V6(found), 4) = (&mut found, address.len()) {
        found.set_scope_id(address.get_item(3)?.extract()?);
    }
    Ok(found)
}

fn ip_address(text: &str) -> PyResult<IpAddr> {
    text.split('%').next().unwrap_or(text).parse().map_err(|_| invalid(format!("{text} is no IP address")))
}

#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Endpoint>()
}
