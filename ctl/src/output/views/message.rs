//! Messages of a bus.

use std::collections::BTreeMap;

use conductor_proto::v1::{BusMessage, MessageLink, MessageParent};
use serde::Serialize;

use super::timestamp;

/// A message for programs.
#[derive(Serialize)]
pub(crate) struct MessageView {
    msg_id: String,
    time: Option<String>,
    r#type: String,
    project_id: String,
    task_id: String,
    run_id: String,
    issue_id: String,
    parents: Vec<ParentView>,
    links: Vec<LinkView>,
    meta: BTreeMap<String, String>,
    body: String,
}

#[derive(Serialize)]
struct ParentView {
    msg_id: String,
    kind: String,
    meta: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct LinkView {
    url: String,
    label: String,
    kind: String,
}

fn parent(parent: &MessageParent) -> ParentView {
    let meta = parent.meta.clone().into_iter().collect();
    ParentView { msg_id: parent.msg_id.clone(), kind: parent.kind.clone(), meta }
}

fn link(link: &MessageLink) -> LinkView {
    LinkView { url: link.url.clone(), label: link.label.clone(), kind: link.kind.clone() }
}

impl From<&BusMessage> for MessageView {
    fn from(message: &BusMessage) -> Self {
        Self {
            msg_id: message.msg_id.clone(),
            time: timestamp(message.time.as_ref()),
            r#type: message.r#type.clone(),
            project_id: message.project_id.clone(),
            task_id: message.task_id.clone(),
            run_id: message.run_id.clone(),
            issue_id: message.issue_id.clone(),
            parents: message.parents.iter().map(parent).collect(),
            links: message.links.iter().map(link).collect(),
            meta: message.meta.clone().into_iter().collect(),
            body: message.body.clone(),
        }
    }
}
