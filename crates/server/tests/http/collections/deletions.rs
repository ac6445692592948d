//! Deletion of documents: a filter that every document matches is refused, and all documents are deleted by a request of
//! its own.

use serde_json::json;

use super::{add, delete, path, three, with_notes};

#[tokio::test]
async fn a_filter_that_every_document_matches_is_refused() {
    let server = with_notes().await;
    add(&server, &three()).await;
    for filter in [
        json!({}),
        json!({"$and": [{}]}),
        json!({"$and": [{"$and": [{}]}, {}]}),
        json!({"kind": {"$nin": []}}),
        json!({"kind": {"$nin": []}, "legs": {"$nin": []}}),
        json!({"$not": {"kind": {"$in": []}}}),
        json!({"$not": {"$or": [{"kind": {"$in": []}}, {"$not": {}}]}}),
        json!({"$or": [{}, {"kind": "animal"}]}),
        json!({"$or": [{"kind": "animal"}, {"kind": {"$nin": []}}]}),
        json!({"$not": {"$not": {}}}),
        json!({"$not": {"kind": {"$lt": ""}}}),
        json!({"$or": [{"kind": "animal"}, {"kind": {"$ne": "animal"}}]}),
        json!({"$or": [{"legs": {"$gt": 3}}, {"$not": {"legs": {"$gte": 4}}}]}),
    ] {
        let answer = delete(&server, &path("/documents"), Some(json!({"filter": filter}))).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (400, "invalid_value"),
            "{filter}: {}",
            answer.text
        );
        let message = answer.message();
        assert!(
            message.contains("matches every document")
                && message.contains(r#"{"all":true,"confirm":"notes"}"#),
            "{message}"
        );
    }
    assert_eq!(server.get(&path("/stats")).await.json["documents"], 3);
    for (filter, deleted) in [
        (json!({"legs": {"$in": []}}), 0),
        (json!({"kind": {"$nin": ["animal", "thing"]}}), 0),
        (json!({"$or": [{"kind": "thing"}, {"legs": {"$lt": 3}}]}), 2),
        (json!({"kind": {"$ne": "thing"}}), 1),
    ] {
        let answer = delete(&server, &path("/documents"), Some(json!({"filter": filter}))).await;
        assert_eq!(answer.json, json!({"deleted": deleted}), "{filter}: {}", answer.text);
    }
}

#[tokio::test]
async fn all_documents_are_deleted_when_the_name_is_repeated() {
    let server = with_notes().await;
    add(&server, &three()).await;
    let wrong = delete(&server, &path("/documents"), Some(json!({"all": true, "confirm": "other"}))).await;
    assert_eq!((wrong.status.as_u16(), wrong.json["error"]["param"].as_str()), (400, Some("confirm")));
    assert!(wrong.message().contains(r#"{"all":true,"confirm":"notes"}"#), "{}", wrong.message());
    assert_eq!(server.get(&path("/stats")).await.json["documents"], 3);
    let all = json!({"all": true, "confirm": "notes"});
    let answer = delete(&server, &path("/documents"), Some(all.clone())).await;
    assert_eq!((answer.status.as_u16(), &answer.json), (200, &json!({"deleted": 3})));
    let stats = server.get(&path("/stats")).await.json;
    assert_eq!((&stats["documents"], &stats["count"]), (&json!(0), &json!(0)));
    assert_eq!(delete(&server, &path("/documents"), Some(all)).await.json["deleted"], 0);
    assert_eq!(add(&server, &three()).await.json["added"], 3, "the collection is still there");
    let absent = path("-absent/documents");
    let answer = delete(&server, &absent, Some(json!({"all": true, "confirm": "notes-absent"}))).await;
    assert_eq!(answer.status, 404);
}
