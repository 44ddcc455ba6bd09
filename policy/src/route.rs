//! Which of a service's routes a request takes: the first one that matches, in the order of the mesh file.
//!
//! Paths and hosts come in their normal form ([`crate::path`], [`crate::host`]). That every service has a route which takes
//! every request, is proven when the configuration is checked.

use model::config::{GatewayBackend, Match, PathMatch, Route};

/// What of a request its route is chosen by.
///
/// `headers` answers the values of a header, given its name in lower case; for an `http::HeaderMap`:
/// `|name| map.get_all(name).iter().map(HeaderValue::as_bytes)`.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a, H> {
    /// The method, as it came (methods are case-sensitive, RFC 9110 §9.1).
    pub method: &'a str,
    /// The path without its query, in its normal form.
    pub path: &'a str,
    /// The values of a header.
    pub headers: H,
}

/// The index of the first route that matches.
#[must_use]
pub fn choose<'v, H, V>(routes: &[Route], request: &Request<'_, H>) -> Option<usize>
where
    H: Fn(&str) -> V,
    V: Iterator<Item = &'v [u8]>,
{
    routes.iter().position(|route| any(&route.matches, request))
}

/// The index of the first of a gateway's backends that lets the request through, `host` being its authority's.
#[must_use]
pub fn choose_backend<'v, H, V>(backends: &[GatewayBackend], host: &str, request: &Request<'_, H>) -> Option<usize>
where
    H: Fn(&str) -> V,
    V: Iterator<Item = &'v [u8]>,
{
    let names = |backend: &GatewayBackend| {
        backend.hosts.is_empty() || backend.hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    };
    backends.iter().position(|backend| names(backend) && any(&backend.matches, request))
}

/// Whether any of the matches holds; no match at all holds for every request.
fn any<'v, H, V>(matches: &[Match], request: &Request<'_, H>) -> bool
where
    H: Fn(&str) -> V,
    V: Iterator<Item = &'v [u8]>,
{
    matches.is_empty() || matches.iter().any(|one| holds(one, request))
}

fn holds<'v, H, V>(one: &Match, request: &Request<'_, H>) -> bool
where
    H: Fn(&str) -> V,
    V: Iterator<Item = &'v [u8]>,
{
    one.method.as_ref().is_none_or(|method| method == request.method)
        && one.path.as_ref().is_none_or(|path| covers(path, request.path))
        && one.headers.iter().all(|(name, wanted)| (request.headers)(name).any(|value| value == wanted.as_bytes()))
}

/// Whether a path is the exact one, or under a prefix of whole segments; `/a` and `/a/` are the same prefix (Gateway API
/// `PathPrefix`).
#[must_use]
pub fn covers(pattern: &PathMatch, path: &str) -> bool {
    match pattern {
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Prefix(prefix) => {
            let stem = prefix.strip_suffix('/').unwrap_or(prefix);
            path.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::name::Name;
    use std::collections::BTreeMap;

    fn one(method: Option<&str>, path: Option<PathMatch>, headers: &[(&str, &str)]) -> Match {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>();
        Match { method: method.map(str::to_owned), path, headers }
    }

    fn exact(path: &str) -> Option<PathMatch> {
        Some(PathMatch::Exact(path.to_owned()))
    }

    fn prefix(path: &str) -> Option<PathMatch> {
        Some(PathMatch::Prefix(path.to_owned()))
    }

    fn routes(matches: Vec<Vec<Match>>) -> Vec<Route> {
        let service = Name::new("payments").unwrap();
        matches.into_iter().map(|matches| Route { matches, ..Route::plain(&service) }).collect()
    }

    fn check(routes: &[Route], method: &str, path: &str, headers: &[(&str, &str)], expected: Option<usize>) {
        let values = |name: &str| {
            let wanted = name.to_owned();
            headers.iter().filter(move |(name, _)| *name == wanted).map(|(_, value)| value.as_bytes())
        };
        assert_eq!(choose(routes, &Request { method, path, headers: values }), expected, "{method} {path} {headers:?}");
    }

    #[test]
    fn a_prefix_takes_whole_segments() {
        for (pattern, path, expected) in [
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/a/", true),
            ("/a", "/ab", false),
            ("/a/", "/a", true),
            ("/a/", "/a/b", true),
            ("/a/", "/ab", false),
            ("/", "/", true),
            ("/", "/anything/at/all", true),
            ("/a/b", "/a", false),
            ("/a", "/A", false),
        ] {
            assert_eq!(covers(&PathMatch::Prefix(pattern.to_owned()), path), expected, "{pattern} {path}");
        }
        assert!(covers(&PathMatch::Exact("/a".to_owned()), "/a"));
        assert!(!covers(&PathMatch::Exact("/a".to_owned()), "/a/"));
    }

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let routes = routes(vec![
            vec![one(Some("POST"), exact("/charges"), &[])],
            vec![one(None, prefix("/charges"), &[("api-version", "2")]), one(None, prefix("/v2"), &[])],
            vec![],
        ]);
        check(&routes, "POST", "/charges", &[("api-version", "2")], Some(0));
        check(&routes, "post", "/charges", &[], Some(2));
        check(&routes, "GET", "/charges/7", &[("api-version", "2")], Some(1));
        check(&routes, "GET", "/charges/7", &[("api-version", "1"), ("api-version", "2")], Some(1));
        check(&routes, "GET", "/charges/7", &[("api-version", "22")], Some(2));
        check(&routes, "GET", "/v2/x", &[], Some(1));
        check(&routes, "GET", "/", &[], Some(2));
        check(&routes[..2], "GET", "/", &[], None);
    }

    #[test]
    fn a_gateway_looks_at_the_host_too() {
        let backend = |service: &str, hosts: &[&str], matches| GatewayBackend {
            service: Name::new(service).unwrap(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            matches,
        };
        let backends = [
            backend("admin", &["Admin.example.com"], vec![]),
            backend("storefront", &[], vec![one(None, prefix("/shop"), &[])]),
        ];
        let request = |path| Request { method: "GET", path, headers: |_: &str| std::iter::empty::<&[u8]>() };
        assert_eq!(choose_backend(&backends, "admin.example.com", &request("/")), Some(0));
        assert_eq!(choose_backend(&backends, "www.example.com", &request("/shop/1")), Some(1));
        assert_eq!(choose_backend(&backends, "www.example.com", &request("/")), None);
    }
}
