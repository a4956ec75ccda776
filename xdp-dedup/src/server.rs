//! The metrics port: `/metrics` and `/healthz` over HTTP/1.

use std::{convert::Infallible, net::TcpListener, sync::Arc, time::Duration};

use anyhow::Result;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{sync::Semaphore, time::timeout};
use tracing::{error, warn};

use crate::metrics::{self, Snapshot};

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
/// A connection ends after this time, however slowly its client reads.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(60);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

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
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: others will be closed.
                warn!("cannot accept a connection for metrics: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&source)));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // What goes wrong here is the client's business.
            let _ = timeout(CONNECTION_LIFETIME, connection).await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    source: Arc<impl Source>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n"));
    }
    Ok(match request.uri().path() {
        "/metrics" => match source
            .snapshot()
            .await
            .and_then(|snapshot| snapshot.encode())
        {
            Ok(body) => {
                let mut response = text(StatusCode::OK, body);
                response.headers_mut().insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static(metrics::CONTENT_TYPE),
                );
                response
            }
            Err(error) => {
                error!("cannot read the metrics: {error:#}");
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n"))
            }
        },
        "/healthz" => match source.health().await {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n"),
    })
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
