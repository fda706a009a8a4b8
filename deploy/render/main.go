// Command render prints what the manifests come to, as the tools of those who apply them would render them:
//
//	render kustomize DIRECTORY
//	render helm CHART NAMESPACE [NAME=VALUE]...
//
// They are the tools' own libraries: that of kustomize is what `kubectl kustomize` runs, and that of Helm is behind
// `helm template --include-crds`.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	documents, err := render(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
	fmt.Print(strings.Join(documents, "\n---\n"))
}

func render(arguments []string) ([]string, error) {
	switch {
	case len(arguments) == 2 && arguments[0] == "kustomize":
		return kustomize(arguments[1])
	case len(arguments) >= 3 && arguments[0] == "helm":
		return helm(arguments[1], arguments[2], arguments[3:])
	default:
		return nil, fmt.Errorf("usage: render kustomize DIRECTORY | render helm CHART NAMESPACE [NAME=VALUE]...")
	}
}

func kustomize(directory string) ([]string, error) {
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		return nil, err
	}
	text, err := resources.AsYaml()
	return []string{string(text)}, err
}

func helm(directory, namespace string, settings []string) ([]string, error) {
	chart, err := loader.Load(directory)
	if err != nil {
		return nil, err
	}
	given := map[string]any{}
	for _, setting := range settings {
		if err := strvals.ParseInto(setting, given); err != nil {
			return nil, err
		}
	}
	release := chartutil.ReleaseOptions{Name: chart.Name(), Namespace: namespace, Revision: 1, IsInstall: true}
	// Checks the values against the chart's schema too.
	values, err := chartutil.ToRenderValues(chart, given, release, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(chart, values)
	if err != nil {
		return nil, err
	}
	var documents []string
	for _, crd := range chart.CRDObjects() {
		documents = append(documents, string(crd.File.Data))
	}
	var names []string
	for name := range rendered {
		if filepath.Ext(name) == ".yaml" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		documents = append(documents, rendered[name])
	}
	return documents, nil
}
