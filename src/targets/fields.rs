//! The fields that a version sets in a kind without pods of its own: those of `spec.inject.fields`, or the usual ones of the kind.
//!
//! Absent: values of a version. They are filled in by `injection`.

use super::kserve;
use crate::api::AliasBinding;
use crate::api::inject::{InjectedField, InjectedValue};

/// The word in the list of fields for a value that is more than one of ours.
const TEXT: &str = "Text";

/// The fields that a binding sets; empty for a workload with containers.
#[must_use]
pub fn fields_of(binding: &AliasBinding) -> Vec<InjectedField> {
    match &binding.spec.inject.fields {
        Some(fields) => fields.clone(),
        None => kserve::usual_fields(&binding.target_kind()),
    }
}

/// A list of fields as an annotation: `spec.model.uri=ModelURI`.
pub(super) fn to_annotation(fields: &[InjectedField]) -> String {
    let pair = |field: &InjectedField| {
        let value = whole_value(&field.value).map_or(TEXT, InjectedValue::as_str);
        format!("{}={value}", field.path)
    };
    fields.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// The paths in such an annotation.
pub(super) fn paths(annotation: &str) -> impl Iterator<Item = &str> {
    let pairs = annotation.split(',');
    pairs.filter_map(|pair| Some(pair.rsplit_once('=')?.0))
}

/// The value that is all of a text, if it is one of ours.
fn whole_value(text: &str) -> Option<InjectedValue> {
    InjectedValue::parse(text.strip_prefix("$(")?.strip_suffix(')')?)
}

/// A text with every reference replaced; `None` if it is one value, and the registry does not say it.
pub(super) fn filled_in(
    text: &str,
    value_of: impl Fn(InjectedValue) -> Option<String>,
) -> Option<String> {
    if let Some(value) = whole_value(text) {
        return value_of(value);
    }
    let mut filled = text.to_owned();
    for value in InjectedValue::ALL {
        let reference = format!("$({value})");
        if filled.contains(&reference) {
            filled = filled.replace(&reference, &value_of(value).unwrap_or_default());
        }
    }
    Some(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(path: &str, value: &str) -> InjectedField {
        InjectedField {
            path: path.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn the_list_of_fields_names_the_values_that_stand_alone() {
        let fields = [
            field("spec.a[name=x].uri", "$(ModelURI)"),
            field("spec.tag", "$(ModelName)-$(ModelVersion)"),
        ];
        let list = to_annotation(&fields);
        assert_eq!(list, "spec.a[name=x].uri=ModelURI,spec.tag=Text");
        let found: Vec<&str> = paths(&list).collect();
        assert_eq!(found, ["spec.a[name=x].uri", "spec.tag"]);
    }

    #[test]
    fn every_reference_is_replaced() {
        let value = |value: InjectedValue| match value {
            InjectedValue::ModelName => Some("taxi".to_owned()),
            InjectedValue::ModelVersion => Some("4".to_owned()),
            _ => None,
        };
        let filled = |text: &str| filled_in(text, value);
        assert_eq!(
            filled("$(ModelName)-v$(ModelVersion)").as_deref(),
            Some("taxi-v4")
        );
        assert_eq!(filled("$(Workspace)"), None);
        assert_eq!(filled("fixed").as_deref(), Some("fixed"));
    }
}
