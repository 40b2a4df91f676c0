//! Yamux over bare TCP, so that its frames can be read off the wire. The first byte of a stream says what to
//! do with it: (e)cho, (c)lose, (r)eset, (o)pen one back, go (a)way.

use crate::{Outcome, report::emit};
use futures::{AsyncReadExt, AsyncWriteExt, future::poll_fn, io::copy};
use serde_json::json;
use std::net::SocketAddr;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};
use tokio_util::compat::TokioAsyncReadCompatExt;
use yamux::{Config, Connection, Mode, Stream};

enum Request {
    OpenBack,
    GoAway,
}

pub async fn run(local: SocketAddr) -> Outcome {
    let listener = TcpListener::bind(local).await?;
    emit("listening", json!({"local": listener.local_addr()?.to_string()}));
    loop {
        tokio::spawn(serve(listener.accept().await?.0));
    }
}

async fn serve(socket: TcpStream) -> Outcome {
    let mut connection = Connection::new(socket.compat(), Config::default(), Mode::Server);
    let (ask, mut asked) = unbounded_channel();
    loop {
        tokio::select! {
            inbound = poll_fn(|context| connection.poll_next_inbound(context)) => match inbound {
                Some(stream) => tokio::spawn(obey(stream?, ask.clone())),
                None => return Ok(()),
            },
            Some(request) = asked.recv() => match request {
                Request::OpenBack => {
                    let stream = poll_fn(|context| connection.poll_new_outbound(context)).await?;
                    tokio::spawn(greet(stream))
                }
                Request::GoAway => return Ok(poll_fn(|context| connection.poll_close(context)).await?),
            },
        };
    }
}

async fn obey(mut stream: Stream, ask: UnboundedSender<Request>) -> Outcome {
    let mut command = [0];
    stream.read_exact(&mut command).await?;
    match command[0] {
        b'a' => ask.send(Request::GoAway)?,
        b'o' => ask.send(Request::OpenBack)?,
        // Its drop resets a stream.
        b'r' => return Ok(()),
        b'e' => {
            let (from, mut to) = stream.split();
            copy(from, &mut to).await?;
            return Ok(to.close().await?);
        }
        _ => {}
    }
    Ok(stream.close().await?)
}

async fn greet(mut stream: Stream) -> Outcome {
    stream.write_all(b"hello").await?;
    Ok(stream.close().await?)
}
