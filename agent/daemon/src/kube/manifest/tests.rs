use proptest::prelude::*;

use super::*;

fn ids(text: &str) -> Vec<String> {
    Manifest::parse(text).unwrap().objects.iter().map(|o| o.id().to_string()).collect()
}

fn refused(text: &str) -> String {
    Manifest::parse(text).unwrap_err().to_string()
}

const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata: { name: a }\n";

#[test]
fn documents_are_read_one_after_the_other_and_empty_ones_are_nothing() {
    let text = format!(
        "# head\n---\n{NODE}---\n---\n# only a comment\n--- # the next\n{}",
        NODE.replace("a }", "b }")
    );
    assert_eq!(ids(&text), ["node a", "node b"]);
    assert_eq!(ids(""), [""; 0]);
    assert_eq!(ids("---\n"), [""; 0]);
    assert_eq!(ids(&format!("\u{feff}{}", NODE.replace('\n', "\r\n"))), ["node a"]);
}

#[test]
fn a_list_as_kubectl_prints_it_is_read_item_by_item() {
    let text = "apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {\"apiVersion\":\"v1\",\"kind\":\"Service\"}
    creationTimestamp: \"2026-11-02T09:20:00Z\"
    name: web
    namespace: shop
  spec:
    ports:
    - name: http
      port: 80
      protocol: TCP
      targetPort: http
  status:
    loadBalancer: {}
- apiVersion: apps/v1
  kind: Deployment
  metadata:
    name: web
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  addressType: IPv4
  endpoints: null
  metadata:
    name: web-x
    namespace: shop
  ports: null
kind: List
metadata:
  resourceVersion: \"\"
";
    let manifest = Manifest::parse(text).unwrap();
    let ids: Vec<String> = manifest.objects.iter().map(|o| o.id().to_string()).collect();
    assert_eq!(ids, ["service shop/web", "endpointslice shop/web-x"]);
    assert_eq!(manifest.ignored, ["apps/v1 Deployment"]);
    assert_eq!(Manifest::parse("apiVersion: v1\nkind: List\nitems: []\n").unwrap(), Manifest::default());
    assert_eq!(Manifest::parse("apiVersion: v1\nkind: List\n").unwrap(), Manifest::default());
}

#[test]
fn json_is_read_too() {
    assert_eq!(ids(r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}"#), ["pod default/p"]);
}

#[test]
fn the_line_and_column_of_a_fault_are_those_in_the_file() {
    let text =
        format!("{NODE}---\napiVersion: v1\nkind: Service\nmetadata: {{ name: s }}\nspec:\n  ports: 7\n");
    let error = refused(&text);
    assert!(error.contains("line 9") && error.contains("column 10"), "{error}");
    let error = refused(&format!("{NODE}---\nkind: [\n"));
    assert!(error.contains("line 5") || error.contains("line 6"), "{error}");
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Node\n  metadata: { name: 1 }\n  spec: x\n";
    assert!(refused(list).contains("line 7"), "{}", refused(list));
}

#[test]
fn what_is_no_object_is_refused_with_its_line() {
    for (text, part, line) in [
        ("just: text\n", "apiVersion and kind", "line 1"),
        ("- 1\n- 2\n", "", "line 1"),
        ("apiVersion: v1\nkind: Pod\n", "metadata.name", "line 1"),
        ("apiVersion: v1\nkind: Pod\nmetadata: { name: '' }\n", "metadata.name", "line 1"),
        (&format!("{NODE}---\n# x\nkind: Pod\n"), "apiVersion and kind", "line 6"),
        ("apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n", "item 0", "line 1"),
        ("apiVersion: v1\nkind: Pod\nkind: Pod\n", "kind", "line 3"),
    ] {
        let error = refused(text);
        assert!(error.contains(part) && error.contains(line), "{text:?}: {error}");
    }
}

#[test]
fn a_list_of_a_whole_cluster_is_no_attack() {
    let item = "- { apiVersion: v1, kind: Pod, metadata: { name: p, labels: { a: b, c: d, e: f } } }\n";
    let text = format!("apiVersion: v1\nkind: List\nitems:\n{}", item.repeat(30_000));
    assert_eq!(Manifest::parse(&text).unwrap().objects.len(), 30_000);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[-a-zA-Z0-9:{}\\[\\]&*!|>'\"%@# \n\t,.?]{0,200}") {
        let _ = Manifest::parse(&text);
        let _ = Manifest::parse(&format!("{NODE}---\n{text}"));
    }
}
