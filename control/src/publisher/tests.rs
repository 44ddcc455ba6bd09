//! What a control plane begins with, by what is kept and what the mesh file says.

use super::*;

fn mesh(name: &str, calls: &str) -> Config {
    let text = format!("mesh: {name}\nservices: {{a: {{command: a, calls: [{calls}]}}, b: {{command: b}}}}\n");
    model::config::check("mesh.yaml", &text).unwrap().config
}

#[test]
fn kept_revisions_win_over_the_mesh_file() {
    let (kept, edited, other) = (|| mesh("shop", ""), || mesh("shop", "b"), || mesh("tax", ""));
    let damaged = |earlier| Last::Unreadable { number: 7, earlier };
    // What is kept, the mesh file; the number, whether the file's configuration is in force, whether it is kept first, whether it
    // is said that the file differs.
    for (last, file, expected) in [
        (Last::Nothing, Some(edited()), (1, true, true, false)),
        (Last::Good(7, kept()), None, (7, false, false, false)),
        (Last::Good(7, kept()), Some(kept()), (7, false, false, false)),
        (Last::Good(7, kept()), Some(edited()), (7, false, false, true)),
        (damaged(Some((5, kept()))), Some(edited()), (8, false, true, true)),
        (damaged(Some((5, kept()))), None, (8, false, true, false)),
        (damaged(None), Some(edited()), (8, true, true, false)),
    ] {
        let case = format!("{last:?} and {file:?}");
        let restarted = last != Last::Nothing;
        let begun = Beginning::choose(last, file).unwrap();
        let in_force = (begun.number, begun.config == edited(), begun.fresh.is_some(), begun.differs);
        assert_eq!((in_force, begun.restarted), (expected, restarted), "{case}");
    }
    for (last, file, why) in [
        (Last::Nothing, None, "no revision is kept and there is no good mesh file"),
        (damaged(None), None, "no kept revision can be read and there is no good mesh file"),
        (Last::Good(7, kept()), Some(other()), "runs the mesh shop; the file is of the mesh tax"),
    ] {
        let error = Beginning::choose(last, file).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
