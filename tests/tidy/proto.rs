//! The style of `conductor.v1`, read from its descriptors.

use std::collections::BTreeMap;

use conductor_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::source_code_info::Location;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Field numbers of `descriptor.proto` by which source locations name what they are about.
const FILE_MESSAGE: i32 = 4;
const FILE_ENUM: i32 = 5;
const FILE_SERVICE: i32 = 6;
const MESSAGE_FIELD: i32 = 2;
const ENUM_VALUE: i32 = 2;
const SERVICE_METHOD: i32 = 2;

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("descriptors");
    set.file.into_iter().filter(|file| file.package() == "conductor.v1").collect()
}

/// Comments by path.
fn comments(file: &FileDescriptorProto) -> BTreeMap<Vec<i32>, String> {
    let locations: &[Location] =
        file.source_code_info.as_ref().map(|info| info.location.as_slice()).unwrap_or_default();
    locations.iter().map(|location| (location.path.clone(), location.leading_comments().to_owned())).collect()
}

fn index(number: usize) -> i32 {
    i32::try_from(number).expect("few of them")
}

#[test]
fn every_message_field_enum_value_service_and_call_has_a_comment() {
    let mut silent = Vec::new();
    for file in files() {
        let comments = comments(&file);
        let mut check = |path: Vec<i32>, name: String| {
            if comments.get(&path).is_none_or(|comment| comment.trim().is_empty()) {
                silent.push(name);
            }
        };
        for (m, message) in file.message_type.iter().enumerate() {
            check(vec![FILE_MESSAGE, index(m)], message.name().to_owned());
            for (f, field) in message.field.iter().enumerate() {
                let path = vec![FILE_MESSAGE, index(m), MESSAGE_FIELD, index(f)];
                check(path, format!("{}.{}", message.name(), field.name()));
            }
        }
        for (e, one) in file.enum_type.iter().enumerate() {
            check(vec![FILE_ENUM, index(e)], one.name().to_owned());
            for (v, value) in one.value.iter().enumerate() {
                check(vec![FILE_ENUM, index(e), ENUM_VALUE, index(v)], value.name().to_owned());
            }
        }
        for (s, service) in file.service.iter().enumerate() {
            check(vec![FILE_SERVICE, index(s)], service.name().to_owned());
            for (m, method) in service.method.iter().enumerate() {
                let path = vec![FILE_SERVICE, index(s), SERVICE_METHOD, index(m)];
                check(path, format!("{}.{}", service.name(), method.name()));
            }
        }
    }
    assert!(silent.is_empty(), "without a comment: {silent:#?}");
}

#[test]
fn enums_begin_unspecified_and_their_values_carry_their_name() {
    for one in files().iter().flat_map(|file| &file.enum_type) {
        let mut prefix = String::new();
        for (place, letter) in one.name().char_indices() {
            if place > 0 && letter.is_ascii_uppercase() {
                prefix.push('_');
            }
            prefix.push(letter.to_ascii_uppercase());
        }
        assert_eq!(one.value[0].name(), format!("{prefix}_UNSPECIFIED"));
        assert_eq!(one.value[0].number(), 0);
        assert!(one.value.iter().all(|value| value.name().starts_with(&format!("{prefix}_"))), "{}", one.name());
    }
}

#[test]
fn every_call_has_a_request_and_a_response_of_its_own() {
    let mut seen = BTreeMap::new();
    for service in files().iter().flat_map(|file| &file.service) {
        assert!(service.name().ends_with("Service"), "{}", service.name());
        for method in &service.method {
            let name = format!("{}.{}", service.name(), method.name());
            assert_eq!(method.input_type(), format!(".conductor.v1.{}Request", method.name()), "{name}");
            assert_eq!(method.output_type(), format!(".conductor.v1.{}Response", method.name()), "{name}");
            for kind in [method.input_type(), method.output_type()] {
                assert_eq!(seen.insert(kind.to_owned(), name.clone()), None, "{kind} is used twice");
            }
        }
    }
}

#[test]
fn fields_are_in_lower_snake_case_and_times_are_the_well_known_types() {
    for message in files().iter().flat_map(|file| &file.message_type) {
        for field in &message.field {
            let name = format!("{}.{}", message.name(), field.name());
            assert!(field.name().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            if field.name().ends_with("_time") && !field.name().starts_with("cpu") && !field.name().starts_with("wall")
            {
                assert_eq!(field.type_name(), ".google.protobuf.Timestamp", "{name}");
            }
        }
    }
}
