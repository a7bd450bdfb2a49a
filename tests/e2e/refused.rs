//! Requests that are no requests: bytes where text belongs, sizes over every limit, calls that do not exist. Each is
//! refused with a reason that a program can read, and leaves no trace.

use anyhow::Result;
use conductor_tests::client::{PROJECT, Transport, project_bus};
use conductor_tests::{Client, Refusal, in_sandbox, tree};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::common::start;

/// `PostMessageRequest` with bytes in the place of its texts, so that they need not be UTF-8.
#[derive(Clone, PartialEq, prost::Message)]
struct RawPost {
    #[prost(message, optional, tag = "1")]
    bus: Option<conductor_proto::v1::BusRef>,
    #[prost(bytes = "vec", tag = "2")]
    kind: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    body: Vec<u8>,
}

/// `SubmitTaskRequest` with bytes in the place of its prompt.
#[derive(Clone, PartialEq, prost::Message)]
struct RawSubmit {
    #[prost(string, tag = "1")]
    project_id: String,
    #[prost(bytes = "vec", tag = "4")]
    prompt: Vec<u8>,
}

/// Calls a method with a message of our own, and returns how it was refused.
fn refused<M: prost::Message + Default + Send + Sync + 'static>(
    client: &Client,
    method: &'static str,
    message: M,
) -> Refusal {
    let mut grpc: tonic::client::Grpc<Transport> = client.grpc().max_encoding_message_size(usize::MAX);
    let call = async move {
        grpc.ready().await.map_err(|error| Status::unknown(format!("{:?}", error.to_string())))?;
        let codec: ProstCodec<M, conductor_proto::v1::PostMessageResponse> = ProstCodec::default();
        grpc.unary(Request::new(message), PathAndQuery::from_static(method), codec).await
    };
    Refusal::of(&client.wait(call).expect_err(method))
}

const POST: &str = "/conductor.v1.BusService/PostMessage";
const SUBMIT: &str = "/conductor.v1.TaskService/SubmitTask";

#[test]
fn text_that_is_no_utf8_is_refused_with_a_reason_and_nothing_is_written() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        client.post(&project_bus(PROJECT), "FACT", "the first")?;
        let before = tree::hashes(&sandbox.root().join(PROJECT));
        let post = |kind: &[u8], body: &[u8]| RawPost {
            bus: Some(project_bus(PROJECT)),
            kind: kind.to_vec(),
            body: body.to_vec(),
        };
        for message in [post(b"FACT", b"\xff\xfe"), post(b"FA\xc3", b"text"), post(b"FACT", b"cut \xe2\x82")] {
            let refusal = refused(&client, POST, message);
            assert_eq!(
                (refusal.code, refusal.reason.as_str()),
                (Code::InvalidArgument, "INVALID_FIELD"),
                "{refusal:?}"
            );
            assert!(refusal.message.contains("UTF-8"), "{refusal:?}");
        }
        let submit = RawSubmit { project_id: PROJECT.to_owned(), prompt: b"\xff".to_vec() };
        assert_eq!(refused(&client, SUBMIT, submit).code, Code::InvalidArgument);
        let output = sandbox.ctl_with(&["bus", "post", "--project", PROJECT], &[], b"\xff\xfe\n")?;
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.stderr.contains("UTF-8"), "{output:?}");
        assert_eq!(tree::hashes(&sandbox.root().join(PROJECT)), before, "nothing was written");
        Ok(())
    });
}

#[test]
fn empty_and_malformed_types_are_refused_with_their_field_and_nothing_is_written() {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        client.post(&project_bus(PROJECT), "FACT", "the first")?;
        let before = tree::hashes(&sandbox.root().join(PROJECT));
        for kind in ["", " ", "two\nlines", "a\0b"] {
            let refusal = Refusal::of(&client.post(&project_bus(PROJECT), kind, "text").expect_err(kind));
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"), "{kind:?}");
            assert_eq!(refusal.fields, ["type"], "{kind:?}: {refusal:?}");
        }
        let refusal = Refusal::of(
            &client.post(&project_bus(PROJECT), "FACT", &"x".repeat((1 << 20) + 1)).expect_err("over 1 MiB"),
        );
        assert_eq!((refusal.code, refusal.fields.as_slice()), (Code::InvalidArgument, &["body".to_owned()][..]));
        assert_eq!(tree::hashes(&sandbox.root().join(PROJECT)), before, "nothing was written");
        Ok(())
    });
}

#[test]
fn a_request_over_every_limit_is_refused_and_its_connection_goes_on() {
    in_sandbox(|sandbox| {
        let (daemon, client) = start(sandbox)?;
        let huge = RawSubmit { project_id: PROJECT.to_owned(), prompt: vec![b'x'; 40 << 20] };
        let refusal = refused(&client, SUBMIT, huge);
        assert!(matches!(refusal.code, Code::ResourceExhausted | Code::OutOfRange), "{refusal:?}");
        assert!(!refusal.reason.is_empty(), "{refusal:?}");
        client.daemon_info()?;
        let peak = conductor_tests::procs::peak(daemon.pid()).expect("it lives");
        assert!(peak < 128 << 20, "a request of 40 MiB is refused before it is read; peak {peak}");
        Ok(())
    });
}

#[test]
fn a_call_that_does_not_exist_is_unimplemented_and_says_so_to_programs_too() -> Result<()> {
    in_sandbox(|sandbox| {
        let (_daemon, client) = start(sandbox)?;
        for method in ["/conductor.v1.BusService/NoSuchCall", "/conductor.v9.NoSuchService/Call"] {
            let refusal = refused(&client, method, RawPost::default());
            assert_eq!(refusal.code, Code::Unimplemented, "{method}: {refusal:?}");
            assert!(!refusal.reason.is_empty(), "every error has its ErrorInfo: {refusal:?}");
        }
        Ok(())
    });
    Ok(())
}
