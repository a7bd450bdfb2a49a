//! A tree with box characters.

/// A node: its text and what hangs below it.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) text: String,
    pub(crate) children: Vec<Node>,
}

/// Lines of the tree below and with `root`.
pub(crate) fn lines(root: &Node) -> Vec<String> {
    let mut lines = vec![root.text.clone()];
    below(root, "", &mut lines);
    lines
}

fn below(node: &Node, prefix: &str, lines: &mut Vec<String>) {
    let last = node.children.len().saturating_sub(1);
    for (index, child) in node.children.iter().enumerate() {
        let (branch, trunk) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(format!("{prefix}{branch}{}", child.text));
        below(child, &format!("{prefix}{trunk}"), lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_drawn_to_the_last_child() {
        let leaf = |text: &str| Node { text: text.into(), children: Vec::new() };
        let root =
            Node { text: "a".into(), children: vec![Node { text: "b".into(), children: vec![leaf("c")] }, leaf("d")] };
        assert_eq!(lines(&root), ["a", "├─ b", "│  └─ c", "└─ d"]);
    }
}
