//! A gRPC server with nothing but the health service, behind the daemon's own socket code.

use std::path::Path;

use conductord::socket::{Admission, Listener, accept};

/// Serves until the returned sender is dropped. To be called within a runtime.
pub(crate) fn serve_health(path: &Path) -> tokio::sync::oneshot::Sender<()> {
    let listener = Listener::bind(path, None).expect("the socket is free");
    let uid = nix::unistd::geteuid().as_raw();
    let incoming = accept(&listener, Admission::new(uid, |_| conductor_core::supervisor::Belonging::Outside))
        .expect("the runtime takes it");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(async move {
        // The listener removes its file when it is dropped.
        let _listener = listener;
        let stopped = async move { drop(stopped.await) };
        let server = tonic::transport::Server::builder().add_service(health);
        server.serve_with_incoming_shutdown(incoming, stopped).await.expect("the server ends well");
    });
    stop
}
