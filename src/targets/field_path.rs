//! Paths such as `spec.containers[name=server].image` into an object, and the operations of a JSON patch at them.
//!
//! Absent: a change of an element that is not there. Maps are made, elements of lists are not.

use serde_json::{Map, Value, json};

/// A step of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step<'a> {
    /// A member of a map.
    Member(&'a str),
    /// The element of a list whose member, such as `name` or `predictor.name`, has this value.
    Element(&'a str, &'a str),
}

/// The steps of a path; the API server has checked its form.
fn steps(path: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    // A value in brackets may hold dots.
    let mut rest = path;
    while !rest.is_empty() {
        if let Some((selector, after)) =
            rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        {
            let (key, value) = selector.split_once('=').unwrap_or((selector, ""));
            steps.push(Step::Element(key, value));
            rest = after;
        } else {
            rest = rest.trim_start_matches('.');
            // A bracket that nothing closes belongs to the name, so that each step is shorter than the rest.
            let end = rest.find(['.', '[']).filter(|end| *end > 0);
            let end = end.unwrap_or(rest.len());
            steps.push(Step::Member(&rest[..end]));
            rest = &rest[end..];
        }
    }
    steps
}

/// The index of an element.
fn index(list: &Value, key: &str, value: &str) -> Option<usize> {
    let mut elements = list.as_array()?.iter();
    elements.position(|element| {
        let member = key
            .split('.')
            .try_fold(element, |found, name| found.get(name));
        member.is_some_and(|member| member == value)
    })
}

/// A member's name as a step of a JSON pointer.
pub(super) fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The value at a path.
pub(super) fn get<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut found = object;
    for step in steps(path) {
        found = match step {
            Step::Member(name) => found.get(name)?,
            Step::Element(key, value) => found.get(index(found, key, value)?)?,
        };
    }
    Some(found)
}

/// Sets a value, and returns the operation that does so; if an element of a list is not there, the path up to it.
pub(super) fn set(object: &mut Value, path: &str, value: &str) -> Result<Value, String> {
    let (mut found, mut pointer, mut walked) = (object, String::new(), String::new());
    let steps = steps(path);
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Member(name) => {
                // A list has elements, not members.
                if found.is_array() {
                    return Err(walked);
                }
                pointer = format!("{pointer}/{}", token(name));
                let dot = if walked.is_empty() { "" } else { "." };
                walked = format!("{walked}{dot}{name}");
                let rest = &steps[number + 1..];
                let is_there = found.get(name).is_some_and(|member| !member.is_null());
                if !is_there || rest.is_empty() {
                    let Some(made) = nested(rest, value) else {
                        return Err(walked);
                    };
                    found[name] = made.clone();
                    return Ok(json!({"op": "add", "path": pointer, "value": made}));
                }
                found = &mut found[name];
                if !found.is_object() && !found.is_array() {
                    return Err(walked);
                }
            }
            Step::Element(key, wanted) => {
                walked = format!("{walked}[{key}={wanted}]");
                let Some(index) = index(found, key, wanted) else {
                    return Err(walked);
                };
                pointer = format!("{pointer}/{index}");
                found = &mut found[index];
            }
        }
    }
    Err(walked)
}

/// The operation that removes what is at a path.
pub(super) fn remove(object: &mut Value, path: &str) -> Option<Value> {
    let (mut found, mut pointer) = (object, String::new());
    let steps = steps(path);
    let (last, parents) = steps.split_last()?;
    for step in parents {
        match *step {
            Step::Member(name) => {
                pointer = format!("{pointer}/{}", token(name));
                found = found.get_mut(name)?;
            }
            Step::Element(key, value) => {
                let index = index(found, key, value)?;
                pointer = format!("{pointer}/{index}");
                found = found.get_mut(index)?;
            }
        }
    }
    let Step::Member(name) = last else {
        return None;
    };
    found.as_object_mut()?.remove(*name)?;
    Some(json!({"op": "remove", "path": format!("{pointer}/{}", token(name))}))
}

/// The value below maps that are made; `None` if an element of a list would have to be made.
fn nested(steps: &[Step<'_>], value: &str) -> Option<Value> {
    let mut made = json!(value);
    for step in steps.iter().rev() {
        let Step::Member(name) = step else {
            return None;
        };
        made = Value::Object(Map::from_iter([((*name).to_owned(), made)]));
    }
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> Value {
        json!({"spec": {"replicas": 2, "containers": [
            {"name": "a", "env": [{"name": "URI", "value": "x"}]}, {"name": "b.c", "image": "i"}]}})
    }

    fn set_in(path: &str, value: &str) -> (Result<Value, String>, Value) {
        let mut object = object();
        (set(&mut object, path, value), object)
    }

    #[test]
    fn a_value_is_found_by_members_and_selectors() {
        let uri = "spec.containers[name=a].env[name=URI].value";
        assert_eq!(get(&object(), uri), Some(&json!("x")));
        assert_eq!(
            get(&object(), "spec.containers[name=b.c].image"),
            Some(&json!("i"))
        );
        assert_eq!(get(&object(), "spec.containers[name=z].image"), None);
        let nested = json!({"spec": {"canary": [{"predictor": {"name": "next", "uri": "u"}}]}});
        let uri = get(&nested, "spec.canary[predictor.name=next].predictor.uri");
        assert_eq!(uri, Some(&json!("u")));
    }

    #[test]
    fn the_exact_element_is_set() {
        let path = "spec.containers[name=a].env[name=URI].value";
        let (operation, changed) = set_in(path, "y");
        let expected = json!({"op": "add", "path": "/spec/containers/0/env/0/value", "value": "y"});
        assert_eq!(operation, Ok(expected));
        assert_eq!(get(&changed, path), Some(&json!("y")));
        assert_eq!(
            changed["spec"]["containers"][1],
            object()["spec"]["containers"][1]
        );
    }

    #[test]
    fn missing_maps_are_made_once() {
        let mut object = object();
        let first = set(&mut object, "spec.model.uri", "s3://m");
        let made = json!({"op": "add", "path": "/spec/model", "value": {"uri": "s3://m"}});
        assert_eq!(first, Ok(made));
        let second = set(&mut object, "spec.model.name", "taxi");
        let added = json!({"op": "add", "path": "/spec/model/name", "value": "taxi"});
        assert_eq!(second, Ok(added));
    }

    #[test]
    fn a_missing_element_and_a_value_in_the_way_are_told() {
        let missing = set_in("spec.containers[name=z].image", "i").0;
        assert_eq!(missing, Err("spec.containers[name=z]".to_owned()));
        assert_eq!(
            set_in("spec.replicas.uri", "i").0,
            Err("spec.replicas".to_owned())
        );
        assert_eq!(
            set_in("spec.none[name=a].x", "i").0,
            Err("spec.none".to_owned())
        );
    }

    #[test]
    fn a_path_with_an_open_bracket_or_a_member_of_a_list_names_nothing() {
        for path in [
            "spec.containers[name=a",
            "[",
            "spec.[x",
            "spec.containers[",
            "...[",
        ] {
            assert_eq!(get(&object(), path), None, "{path}");
            assert_eq!(remove(&mut object(), path), None, "{path}");
        }
        let within_a_list = set_in("spec.containers.image", "i").0;
        assert_eq!(within_a_list, Err("spec.containers".to_owned()));
    }

    #[test]
    fn a_field_is_removed() {
        let mut object = object();
        let operation = remove(&mut object, "spec.containers[name=b.c].image");
        assert_eq!(
            operation,
            Some(json!({"op": "remove", "path": "/spec/containers/1/image"}))
        );
        assert_eq!(remove(&mut object, "spec.containers[name=b.c].image"), None);
    }
}
