//! Details for the errors that the transport makes by itself: a message that can't be decoded or is too large, a call
//! that does not exist, a deadline. Errors of the handlers have theirs and pass through.

use conductor_proto::reason;
use tonic::{Code, Status};

use super::error;

/// Where a status with details carries them.
const DETAILS: &str = "grpc-status-details-bin";
/// What the decoder's own errors begin with.
const UNDECODABLE: &str = "failed to decode Protobuf message: ";
/// How it says that a text is not UTF-8: `Message.field: invalid string value: …`.
const NOT_UTF8: &str = "invalid string value";

/// Gives an error without details its reason, and a request that is at fault the code that says so.
pub(super) fn add<B: Default>(answer: http::Response<B>) -> http::Response<B> {
    match detailed(answer.headers()) {
        Some(status) => status.into_http(),
        None => answer,
    }
}

/// The status to answer with instead; `None`: the answer is no error, or has its details.
fn detailed(headers: &http::HeaderMap) -> Option<Status> {
    // Errors of a call that has not begun to answer are in the headers.
    if headers.contains_key(DETAILS) {
        return None;
    }
    let status = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)?;
    Some(match status.code() {
        Code::Internal if status.message().starts_with(UNDECODABLE) => undecodable(status.message()),
        // A request over the limit of the transport, which has room for the largest prompt.
        Code::OutOfRange | Code::ResourceExhausted => {
            error::status(Code::ResourceExhausted, reason::LIMIT, status.message())
        }
        Code::Unimplemented => {
            error::status(Code::Unimplemented, reason::UNIMPLEMENTED, "this daemon has no such call; is it older?")
        }
        Code::DeadlineExceeded => error::status(Code::DeadlineExceeded, reason::DEADLINE, status.message()),
        code => error::status(code, reason::INTERNAL, status.message()),
    })
}

/// `failed to decode Protobuf message: PostMessageRequest.body: invalid string value: …` names the field.
fn undecodable(message: &str) -> Status {
    let problem = message.trim_start_matches(UNDECODABLE);
    let path = problem.split(": ").next().filter(|path| path.contains('.')).unwrap_or("");
    let field = path.split_once('.').map_or("", |(_, field)| field);
    let text = if problem.contains(NOT_UTF8) { "the text is not UTF-8" } else { problem };
    error::field(if field.is_empty() { "request" } else { field }, text)
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    fn answer(status: Status) -> Option<Status> {
        detailed(status.into_http::<String>().headers())
    }

    fn reason_of(status: &Status) -> String {
        status.get_details_error_info().expect("every error has one").reason
    }

    #[test]
    fn text_that_is_no_utf8_is_the_callers_fault_and_names_its_field() {
        let text = format!("{UNDECODABLE}PostMessageRequest.body: invalid string value: data is not UTF-8 encoded");
        let status = answer(Status::internal(text)).expect("replaced");
        assert_eq!((status.code(), reason_of(&status).as_str()), (Code::InvalidArgument, reason::INVALID_FIELD));
        assert_eq!(status.message(), "body: the text is not UTF-8");
    }

    #[test]
    fn an_error_of_the_transport_gets_a_reason_and_one_of_a_handler_keeps_its_own() {
        for (code, expected) in [
            (Code::OutOfRange, reason::LIMIT),
            (Code::Unimplemented, reason::UNIMPLEMENTED),
            (Code::DeadlineExceeded, reason::DEADLINE),
            (Code::Unknown, reason::INTERNAL),
        ] {
            assert_eq!(reason_of(&answer(Status::new(code, "bare")).expect("replaced")), expected);
        }
        assert!(answer(error::field("slug", "too short")).is_none());
        assert!(detailed(&http::HeaderMap::new()).is_none(), "an answer that goes on");
        assert!(answer(Status::ok("")).is_none());
    }
}
