//! The metrics port: `/metrics` and `/healthz` over HTTP/1, for whoever can reach it. What clients can
//! take up is bounded: connections, the time and bytes that each may take, and readings of the maps.

mod connections;
mod shared_reading;

use std::{
    convert::Infallible,
    io::ErrorKind,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::timeout};
use tracing::{error, warn};

use self::{
    connections::{Connections, Progress, Stage},
    shared_reading::SharedReading,
};
use crate::metrics::{self, Snapshot};

/// A connection ends after this time, however slowly its client reads.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const HEADER_SIZE: usize = 8 * 1024;
/// How long to wait where no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the log says so.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Where the answers come from.
pub trait Source: Send + Sync + 'static {
    /// What a scrape tells, read now.
    fn snapshot(self: Arc<Self>) -> impl Future<Output = Result<Snapshot>> + Send;

    /// Whether all is as it should be; if not, what is wrong.
    fn health(self: Arc<Self>) -> impl Future<Output = Result<()>> + Send;
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, source: Arc<impl Source>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error!("cannot serve metrics: {error}"),
    };
    let answers = Arc::new(Answers {
        source,
        text: SharedReading::default(),
        health: SharedReading::default(),
    });
    let mut connections = Connections::default();
    let mut complained: Option<Instant> = None;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.make_room().await;
                let answers = Arc::clone(&answers);
                connections.start(|progress| converse(stream, answers, progress));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Out of file descriptors, most likely.
                if complained.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL) {
                    warn!("cannot accept a connection for metrics: {error}");
                    complained = Some(Instant::now());
                }
                connections.close_half_of_the_waiting();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One request and its answer. No connection is kept for more: a scrape that comes just when the time
/// of an old connection is over would be lost.
async fn converse(stream: TcpStream, answers: Arc<Answers<impl Source>>, progress: Progress) {
    let service = service_fn(move |request| {
        let (answers, progress) = (Arc::clone(&answers), progress.clone());
        async move {
            progress.set(Stage::Answering);
            let answer = answers.answer(&request).await;
            progress.set(Stage::Sending);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(HEADER_SIZE)
        .max_buf_size(2 * HEADER_SIZE)
        .keep_alive(false)
        // `nc -N` and others close their side when they have asked.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    // What goes wrong here is the client's business.
    let _ = timeout(CONNECTION_LIFETIME, connection).await;
}

/// What there is to answer.
struct Answers<S> {
    source: Arc<S>,
    text: SharedReading<Bytes>,
    health: SharedReading<()>,
}

impl<S: Source> Answers<S> {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let response = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
            return with(response, ALLOW, "GET, HEAD");
        }
        let source = Arc::clone(&self.source);
        match request.uri().path() {
            "/metrics" => {
                let read = async { Ok(source.snapshot().await?.encode()?.into()) };
                match self.text.read(read).await {
                    Ok(body) => {
                        let response = text(StatusCode::OK, body);
                        with(response, CONTENT_TYPE, metrics::CONTENT_TYPE)
                    }
                    Err(error) => {
                        error!("cannot read the metrics: {error}");
                        text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
                    }
                }
            }
            "/healthz" => match self.health.read(source.health()).await {
                Ok(()) => text(StatusCode::OK, "ok\n"),
                Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
            },
            _ => text(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n"),
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

fn with<B>(
    mut response: Response<B>,
    name: hyper::header::HeaderName,
    value: &'static str,
) -> Response<B> {
    let headers = response.headers_mut();
    headers.insert(name, HeaderValue::from_static(value));
    response
}
